"""The groups of parameters that the optimizer updates, each at its rate."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from common.models.families import FAMILIES
from common.training.optimizer import ParameterGroups
from common.training.settings import RunArgs
from tests.support.cells import QA, build
from tests.support.techniques import DECLARED, TECHNIQUES

RATE = 1e-3


def made(tiny, tmp_path, key="standard", own=None, **args):
    """(the model, the groups as names, what transformers makes as names, the groups themselves)."""
    model, _, _ = build(tiny, key, "bert")
    technique = TECHNIQUES[key](learning_rate=RATE, weight_decay=0.01, **own or {})
    arguments = TrainingArguments(
        tmp_path, weight_decay=0.01, learning_rate=RATE, use_cpu=True, report_to="none"
    )
    trainer = Trainer(model, arguments)
    groups = ParameterGroups(technique, RunArgs(**args), FAMILIES["bert"], QA)
    found = groups.of(model, trainer.get_decay_parameter_names(model))
    return model, found, trainer.create_optimizer().param_groups


def named(model, groups):
    names = {id(p): n for n, p in model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in groups]


@pytest.mark.parametrize("key", DECLARED)
def test_without_a_knob_they_are_those_of_transformers(key, tiny, tmp_path):
    model, found, theirs = made(tiny, tmp_path, key)
    assert named(model, found) == named(model, theirs)
    assert [set(group) for group in found] == [{"params", "weight_decay"}] * 2
    assert [g["weight_decay"] for g in found] == [g["weight_decay"] for g in theirs] == [0.01, 0.0]


def rates(model, groups):
    """Parameter → (rate, weight decay)."""
    return {
        name: (group.get("lr", RATE), group["weight_decay"])
        for names, group in zip(named(model, groups), groups, strict=True)
        for name in names
    }


@pytest.mark.parametrize("key", ["standard", "lora"])
def test_the_head_has_a_rate_of_its_own(key, tiny, tmp_path):
    model, found, theirs = made(tiny, tmp_path, key, head_learning_rate=0.5)
    at, before = rates(model, found), rates(model, theirs)
    assert at.keys() == before.keys()
    for name, (rate, decay) in at.items():
        assert rate == (0.5 if "qa_outputs" in name else RATE) and decay == before[name][1]
    # The technique's own rate is the first group's, which is the one that is logged.
    assert "lr" not in found[0]


@pytest.mark.parametrize("key", ["standard", "lora", "top-layers"])
def test_rates_fall_from_the_last_block_to_the_embeddings(key, tiny, tmp_path):
    model, found, theirs = made(tiny, tmp_path, key, layer_decay=0.5)
    at, before = rates(model, found), rates(model, theirs)
    expected = {"layer.1.": RATE, "layer.0.": RATE / 2, "embeddings.": RATE / 4, "qa_outputs": RATE}
    assert at.keys() == before.keys()
    for name, (rate, decay) in at.items():
        (wanted,) = {r for part, r in expected.items() if part in name}
        assert rate == pytest.approx(wanted) and decay == before[name][1]


def test_lora_plus_gives_the_second_factors_another_rate(tiny, tmp_path):
    model, found, _ = made(tiny, tmp_path, "lora", {"lora_plus_ratio": 16.0})
    at = rates(model, found)
    assert {name for name, (rate, _) in at.items() if rate != RATE} == {
        name for name in at if "lora_B" in name
    }
    assert {rate for rate, _ in at.values()} == {RATE, 16 * RATE}


def test_the_optimizer_steps_each_group_at_its_rate(tiny, tmp_path):
    model, found, _ = made(tiny, tmp_path, head_learning_rate=0.5, layer_decay=0.5)
    optimizer = torch.optim.SGD(found, lr=RATE)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    at = rates(model, found)
    optimizer.step()
    for name, p in model.named_parameters():
        rate, decay = at[name]
        torch.testing.assert_close(p.detach(), start[name] - rate * (1 + decay * start[name]))
