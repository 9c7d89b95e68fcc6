import dataclasses

import pytest
from transformers import AlbertConfig, BertConfig, GPT2Config

from common.errors import UserError
from common.models.families import FAMILIES
from common.training.refusals import check, check_model
from common.training.settings import RunArgs, Technique, resolved, run_fingerprint
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


@pytest.mark.parametrize(
    ("key", "fields", "reason"),
    [
        (
            "head",
            {"head_learning_rate": 0.1},
            "--head_learning_rate: Head alone trains nothing else: use --learning_rate",
        ),
        ("head", {"layer_decay": 0.9}, "--layer_decay: Head alone trains nothing in the model's blocks"),
        (
            "prefix-tuning",
            {"layer_decay": 0.9},
            "--layer_decay: Prefix tuning trains nothing in the model's blocks",
        ),
        (
            "lora",
            {"freeze_embeddings": True},
            "--freeze_embeddings is for techniques that train all weights; LoRA",
        ),
        (
            "bitfit",
            {"freeze_embeddings": True},
            "--freeze_embeddings is for techniques that train all weights; BitFit",
        ),
    ],
)
def test_parts_that_are_not_trained_have_no_rate_of_their_own(key, fields, reason):
    with pytest.raises(UserError, match=reason):
        check_model(TECHNIQUES[key](), RunArgs(**fields), FAMILIES["bert"], BertConfig())


@pytest.mark.parametrize("fields", [{"pack_batches": True}, {"head_learning_rate": 0.1}])
def test_values_that_peft_refuses_are_one_line_whatever_else_is_set(fields):
    @dataclasses.dataclass(frozen=True)
    class Broken(Technique):
        name = key = "Broken"

        def method(self, family):
            raise ValueError("`r` should be\na positive integer")

    with pytest.raises(
        UserError, match="^Broken cannot be set up with these values: `r` should be a positive"
    ):
        check_model(Broken(), RunArgs(**fields), FAMILIES["bert"], BertConfig())


def test_a_model_without_a_head_has_no_rate_for_it():
    args = RunArgs(task="generative-qa", head_learning_rate=0.1)
    with pytest.raises(UserError, match="models for generative-qa have no head"):
        check_model(LORA(), args, FAMILIES["gpt2"], GPT2Config())


def test_a_family_without_checkpointed_gradients_is_named():
    args = RunArgs(gradient_checkpointing=True)
    check_model(LORA(), args, FAMILIES["bert"], BertConfig())
    with pytest.raises(
        UserError, match="--gradient_checkpointing: transformers has none for albert: leave it out"
    ):
        check_model(LORA(), args, FAMILIES["albert"], AlbertConfig())


def test_no_more_epochs_are_averaged_than_are_trained():
    check(LORA(num_train_epochs=2.5), RunArgs(average_last=3))
    with pytest.raises(UserError, match="--average_last 3 is more than the 2 epochs"):
        check(LORA(), RunArgs(average_last=3))


def test_a_polynomial_schedule_needs_a_rate_above_its_end():
    with pytest.raises(UserError, match="--lr_scheduler_type polynomial falls to 1e-7"):
        check(LORA(learning_rate=1e-8), RunArgs(lr_scheduler_type="polynomial"))


@pytest.mark.parametrize(
    "knob",
    [
        {"lr_scheduler_type": "cosine"},
        {"optim": "sgd"},
        {"head_learning_rate": 0.1},
        {"layer_decay": 0.9},
        {"label_smoothing": 0.1},
        {"gradient_checkpointing": True},
        {"freeze_embeddings": True},
        {"average_last": 2},
    ],
)
def test_each_training_knob_is_in_the_fingerprint(knob):
    ((name, value),) = knob.items()
    settings = resolved(LORA(), RunArgs(**knob))
    assert settings[name] == value
    assert run_fingerprint(settings) != run_fingerprint(resolved(LORA(), RunArgs()))
