import dataclasses

import pytest

from common.errors import UserError
from common.training.settings import RunArgs, check, resolved, run_fingerprint
from tests.support.techniques import TECHNIQUES

LORA = TECHNIQUES["lora"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("max_length", -1),
        ("max_train_samples", 0),
        ("warmup_ratio", 1.0),
        ("precision", "int8"),
        ("doc_stride", 300),
        ("max_grad_norm", float("nan")),
    ],
)
def test_values_that_cannot_train_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=f"--{field}"):
        check(LORA(), RunArgs(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"), [("learning_rate", 0.0), ("num_train_epochs", float("inf")), ("weight_decay", -1.0)]
)
def test_techniques_own_values_are_checked_too(field, value):
    with pytest.raises(UserError, match=f"--{field}"):
        check(LORA(**{field: value}), RunArgs())


def test_the_defaults_of_every_technique_pass():
    for technique in TECHNIQUES.values():
        check(technique(), RunArgs())


def test_fingerprint_changes_with_what_decides_the_result_and_with_nothing_else():
    def key(technique=None, data="d", checkpoint="c", **args):
        return run_fingerprint(
            resolved(technique or LORA(), RunArgs(**args)), data=data, checkpoint=checkpoint
        )

    same = key()
    assert (
        key(
            run_name="x", output_dir="y", resume=True, save_steps=7, experiment_name="z", data_dir="elsewhere"
        )
        == same
    )
    changed = [key(LORA(r=4)), key(LORA(learning_rate=1.0)), key(data="e"), key(checkpoint="k")]
    changed += [
        key(**{name: value})
        for name, value in dict(seed=1, batch_size=3, max_length=99, max_train_samples=5).items()
    ]
    assert len({same, *changed}) == 1 + len(changed)


def test_technique_names_are_distinct_and_every_field_has_help():
    assert len({t.name for t in TECHNIQUES.values()}) == len(TECHNIQUES)
    for kind in (RunArgs, *TECHNIQUES.values()):
        for field in dataclasses.fields(kind):
            assert field.metadata.get("help"), (kind, field.name)


def test_class_weights_belong_to_tasks_with_classes():
    for task in ("classification", "multi-label-classification"):
        check(LORA(), RunArgs(task=task, class_weights="balanced"))
    with pytest.raises(UserError, match="balanced is for classification and multi-label-classification"):
        check(LORA(), RunArgs(class_weights="balanced"))
    with pytest.raises(UserError, match="class_weights"):
        check(LORA(), RunArgs(task="classification", class_weights="inverse"))
    plain, weighed = (
        resolved(LORA(), RunArgs(task="classification", class_weights=value))
        for value in ("none", "balanced")
    )
    assert run_fingerprint(plain) != run_fingerprint(weighed)
