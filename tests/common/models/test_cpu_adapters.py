"""Layers with a technique compute the same as PEFT's, gradients included, and are really taken."""

import copy

import pytest
import torch

from common.models import cpu_adapters, quick_updates
from common.models.cpu_kernels import quicken
from common.models.families import FAMILIES
from tests.common.models.test_cpu_kernels import ENCODERS, FURTHER, built, logits, outcome
from tests.support.techniques import refusal
from tests.support.techniques import technique as technique_of

QUICK = {
    "lora": cpu_adapters.LoraLinear,
    "lora, dora": cpu_adapters.LoraLinear,
    "lora, all at once": cpu_adapters.LoraLinear,
    "lora, biases": cpu_adapters.LoraLinear,
    "adalora": cpu_adapters.AdaLoraLinear,
    "loha": quick_updates.LohaLinear,
    "lokr": quick_updates.LokrLinear,
    "fourierft": quick_updates.FourierLinear,
    "boft": quick_updates.BoftLinear,
}


@pytest.mark.parametrize(
    ("technique", "family_name"),
    [
        pytest.param(technique, name, marks=pytest.mark.long if name in FURTHER else ())
        for technique in QUICK
        for name in (*ENCODERS, "gpt2", "t5", *FURTHER)
        if not refusal(technique, FAMILIES[name], "QuestionAnswering")
    ],
)
def test_layers_give_pefts_results_and_gradients(technique, family_name, tiny):
    model, batch = built(tiny, family_name, technique)
    model.eval()
    quick = quicken(copy.deepcopy(model))
    classes = {type(module) for module in quick.modules()}
    # DoRA's backward pass needs the result.
    slow = FAMILIES[family_name].overwrites_results and getattr(technique_of(technique), "dora", False)
    assert (QUICK[technique] in classes) != slow
    (found, grads), (expected, expected_grads) = outcome(quick, batch), outcome(model, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("technique", QUICK)
def test_evaluation_updates_each_weight_once_and_forgets_it(technique, tiny):
    model, batch = built(tiny, "bert", technique)
    model = quicken(model).eval()
    layers = [module for module in model.modules() if isinstance(module, QUICK[technique])]
    before = logits(model, batch)
    with cpu_adapters.updates_held(model.eval()):
        torch.testing.assert_close(logits(model, batch), before, rtol=1e-5, atol=1e-5)
        (weight,) = layers[0].held.values()
        logits(model, batch)
        assert layers[0].held["default"] is weight
    assert not any(layer.held for layer in layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "_" in name:
                parameter.mul_(1.5)
    with cpu_adapters.updates_held(model):
        after = logits(model, batch)
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(logits(model.eval(), batch), after, rtol=1e-5, atol=1e-5)


def test_what_is_not_the_common_case_is_left_to_peft(tiny):
    model, batch = built(tiny, "bert", "lora")
    model.eval()
    with model.disable_adapter():
        expected = logits(model, batch)
    quicken(model)
    with model.disable_adapter():
        found = logits(model, batch)
    assert torch.equal(found, expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert logits(model, batch).isfinite().all()
    alone = logits(model, batch)
    merged = model.merge_and_unload()
    assert not any(isinstance(module, cpu_adapters.LoraLinear) for module in merged.modules())
    torch.testing.assert_close(logits(merged, batch), alone, rtol=1e-4, atol=1e-5)
