"""What --help of a technique's script shows."""

import dataclasses
import re

import pytest

from common.errors import UserError
from common.training.command_line import parse
from common.training.settings import GROUPS, RunArgs, option
from tests.support.techniques import TECHNIQUES


def shown(technique, capsys):
    """Heading → the text below it; the last one is the example."""
    with pytest.raises(SystemExit):
        parse(technique, ["--help"])
    _, *parts = re.split(r"^(\S[^\n]*):$", capsys.readouterr().out, flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("key", TECHNIQUES)
def test_every_flag_is_in_its_group_once_with_one_spelling(key, capsys):
    groups = shown(TECHNIQUES[key], capsys)
    assert list(groups)[1:-1] == list(GROUPS)
    flags = {group: re.findall(r"^  (--\S+)", text, re.M) for group, text in groups.items()}
    for kind in (TECHNIQUES[key], RunArgs):
        for field in dataclasses.fields(kind):
            assert flags[field.metadata["group"]].count(f"--{field.name}") == 1
    every = [flag for found in flags.values() for flag in found]
    assert len(every) == len(set(every)) and not [flag for flag in every if "-" in flag[2:]]
    declared = {f"--{f.name}" for kind in (TECHNIQUES[key], RunArgs) for f in dataclasses.fields(kind)}
    assert set(every) - {"--config"} == declared


def test_choices_bounds_and_defaults_are_shown(capsys):
    groups = {name: " ".join(text.split()) for name, text in shown(TECHNIQUES["lora"], capsys).items()}
    assert "--targets {all,attention,attention+projection} layers" in groups["technique"]
    assert "rank of each update (at least 1 and at most 65536; default: 16)" in groups["technique"]
    assert "dropout before the update (at least 0 and below 1; default: 0.0)" in groups["technique"]
    assert groups["technique"].startswith("--r N")
    assert "--task {extractive-qa,classification,generative-qa,multi-label-classification}" in groups["model"]
    assert "--precision {auto,fp32,fp16,bf16}" in groups["training"]
    assert "--report_to {mlflow,wandb} [{mlflow,wandb} ...]" in groups["tracking and resuming"]
    assert "None" not in " ".join(groups.values()) and "default: false" not in str(groups).lower()


@pytest.mark.parametrize(
    ("key", "flag"), [("lora", "--r 16"), ("ia3", "--learning_rate 0.02"), ("prompt-encoder", "--num_virtual_tokens 20")]
)  # fmt: skip
def test_the_example_can_be_typed(key, flag, capsys):
    heading, command = list(shown(TECHNIQUES[key], capsys).items())[-1]
    assert heading.startswith("example") and len(command.strip().splitlines()) == 1
    command = command.strip()
    assert command.endswith(flag)
    _, args = parse(TECHNIQUES[key], command.split()[2:])
    assert (args.model_checkpoint, args.max_train_samples) == ("embedded", 1000)


def test_dashes_are_taken_for_underscores_and_booleans_take_a_value():
    technique, args = parse(
        TECHNIQUES["lora"], ["--batch-size=3", "--run-name", "a-b", "--resume", "--learning-rate", "1e-4"]
    )
    assert (args.batch_size, args.run_name, args.resume, technique.learning_rate) == (3, "a-b", True, 1e-4)
    assert parse(TECHNIQUES["lora"], ["--resume", "false", "--pack_batches", "yes"])[1].pack_batches
    with pytest.raises(UserError, match="--resume: 'maybe' is neither true nor false"):
        parse(TECHNIQUES["lora"], ["--resume", "maybe"])


def test_a_field_that_is_on_by_default_can_be_switched_off():
    @dataclasses.dataclass(frozen=True)
    class On(TECHNIQUES["lora"]):
        bias: bool = option(True, "train biases, 100% of them")

    assert parse(On, [])[0].bias and not parse(On, ["--bias", "false"])[0].bias
