"""Every number and every choice says which values it may have; all others are refused in one line before anything loads."""

import dataclasses
import math

import pytest

from common.bounds import SEEDS, Bounds, bounds_of, number
from common.errors import UserError
from common.studies import declaration
from common.studies.fields import types_of
from common.training.command_line import parse
from common.training.refusals import check
from common.training.settings import RunArgs, option
from tests.support.techniques import TECHNIQUES

KINDS = {"run": RunArgs, **TECHNIQUES}
FIELDS = [(key, name) for key, kind in KINDS.items() for name in bounds_of(kind)]


def step(kind, name):
    """The least by which a field's values differ, as far as these tests go."""
    return 1 if "int" in str(types_of(kind)[name]) else 1e-9


def given(*limits):
    return [limit for limit in limits if limit is not None]


def outside(kind, name):
    """Values that the field's bounds do not allow."""
    bounds, d = bounds_of(kind)[name], step(kind, name)
    if bounds.choices:
        return ["no such choice", next(iter(bounds.choices)).swapcase()]
    found = given(bounds.above, bounds.below) + [v - d for v in given(bounds.minimum)]
    found += [v * 2 for v in given(bounds.maximum)] + [10**400] * (d == 1)
    return found + [math.nan, math.inf, -math.inf] * (d != 1)


def inside(kind, name):
    """Values at the bounds."""
    bounds, d = bounds_of(kind)[name], step(kind, name)
    if bounds.choices:
        return bounds.choices
    found = given(bounds.minimum, bounds.maximum) + [v + d for v in given(bounds.above)]
    return found + [v - d for v in given(bounds.below)]


def made(key, **values):
    technique = TECHNIQUES["lora" if key == "run" else key]
    return (technique(), RunArgs(**values)) if key == "run" else (technique(**values), RunArgs())


def test_every_number_has_bounds():
    for kind in KINDS.values():
        for name, declared in types_of(kind).items():
            if any(word in str(declared) for word in ("int", "float")):
                assert bounds_of(kind).get(name), (kind.__name__, name)


@pytest.mark.parametrize(("key", "name"), FIELDS)
def test_values_outside_are_refused_by_name_and_those_at_the_bounds_pass(key, name, tmp_path):
    kind = KINDS[key]
    is_list = "list" in str(types_of(kind)[name])
    for value in outside(kind, name):
        with pytest.raises(UserError, match=f"--{name} is ") as refused:
            check(*made(key, **{name: [value] if is_list else value}))
        assert "\n" not in str(refused.value)
        # By flag and by file alike.
        technique = TECHNIQUES["lora" if key == "run" else key]
        file = tmp_path / "c.yaml"
        file.write_text(f"{name}: '{value}'")
        for argv in ([f"--{name}={value}"], ["--config", str(file)]):
            with pytest.raises(UserError, match=name):
                check(*parse(technique, argv))
    for value in inside(kind, name):
        if (name, value) in BY_THEMSELVES:
            continue
        check(*made(key, **{name: [value] if is_list else value}))


def is_a_rows(key, name):
    """Whether a study's row sets the field, to a single value."""
    return name not in ("report_to", "task", "seed") and bool(outside(KINDS[key], name))


BY_THEMSELVES = {
    ("max_length", 1),
    ("doc_stride", 10**6),
    ("task", "classification"),
    ("report_to", "wandb"),
    ("class_weights", "balanced"),
    ("average_last", 1000),
    *(("distillation_weight", weight) for weight in (0, 1)),
    *(("distillation_temperature", temperature) for temperature in (1e-9, 100)),
}
"""Within bounds, but not with the other fields' defaults, or only where something is installed."""


@pytest.mark.parametrize(("key", "name"), [field for field in FIELDS if is_a_rows(*field)])
@pytest.mark.parametrize("by", ["base", "grid", "search"])
def test_a_study_names_file_technique_and_field_before_any_row(key, name, by):
    technique = "lora" if key == "run" else key
    value = outside(KINDS[key], name)[0]
    own = {name: value} if by == "base" else {by: {name: [value] if by == "grid" else {"choice": [value]}}}
    content = {"name": "s", "description": "d", "techniques": {technique: own}}
    content |= {"trials": 1} if by == "search" else {}
    with pytest.raises(
        UserError, match=rf"^s.yaml: techniques\.{technique}.*\.{name}.* is .* for {technique}; it must be"
    ):
        declaration.parse(content, "s.yaml", TECHNIQUES)


@pytest.mark.parametrize("seed", [-1, SEEDS + 1])
def test_a_study_has_seeds_that_can_be_set(seed):
    with pytest.raises(UserError, match=f"s.yaml: seeds.0 is {seed}; it must be at least 0"):
        declaration.parse(
            {"name": "s", "description": "d", "techniques": ["lora"], "seeds": [seed]}, "s.yaml", TECHNIQUES
        )


@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        ("lora", "alpha", 0), ("lora", "alpha", -8), ("lora", "r", 0), ("lora", "r", -4), ("lora", "dropout", 1.5),
        ("loha", "alpha", 0), ("loha", "r", 0), ("loha", "dropout", 1.0),
        ("prompt-encoder", "num_virtual_tokens", 0), ("prompt-encoder", "encoder", "GRU"),
        ("prompt-encoder", "encoder_size", 0), ("prefix-tuning", "num_virtual_tokens", 0),
        ("prefix-tuning", "projection_size", 0), ("standard", "weight_decay", math.nan),
        ("run", "seed", -1), ("run", "seed", 4324379876), ("ia3", "learning_rate", math.inf),
    ],
)  # fmt: skip
def test_what_would_train_nothing_or_end_in_a_traceback_is_refused(key, name, value):
    with pytest.raises(UserError, match=f"--{name} is "):
        check(*made(key, **{name: value}))


def test_help_shows_the_bounds(capsys):
    with pytest.raises(SystemExit):
        parse(TECHNIQUES["prompt-encoder"], ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--encoder {MLP,LSTM}" in shown and "(at least 1 and at most 65536; default: 20)" in shown
    assert "(at least 0 and below 1; default: 0.1)" in shown


def test_a_flag_of_a_script_is_a_number_within_bounds():
    import argparse

    assert number(minimum=1)("3") == 3 and number(float, above=0)("1e-3") == 1e-3
    for convert, text in (
        (number(minimum=1), "0"),
        (number(), "x"),
        (number(float), "nan"),
        (number(float, below=1), "inf"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            convert(text)


def test_another_default_keeps_the_bounds():
    @dataclasses.dataclass(frozen=True)
    class Other(TECHNIQUES["lora"]):
        learning_rate: float = option(1.0, "peak learning rate")

    with pytest.raises(UserError, match="--learning_rate is -1.0: it must be above 0"):
        check(Other(learning_rate=-1.0), RunArgs())


def test_bounds_are_said_in_words():
    assert str(Bounds(minimum=0, below=1)) == "at least 0 and below 1"
    assert not Bounds() and dataclasses.replace(Bounds(), choices=("a",))
