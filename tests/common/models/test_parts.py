"""The parts of a model that parameters belong to, in each family and whatever technique is on it."""

import pytest
import torch
from transformers import AutoConfig

from common.models import parts
from common.models.families import FAMILIES
from tests.support.cells import QA, build, loss_of, quick
from tests.support.techniques import DECLARED


@pytest.mark.parametrize("family_name", [name for name in sorted(FAMILIES) if QA in FAMILIES[name].heads])
def test_every_parameter_is_in_the_embeddings_a_block_the_head_or_a_named_rest(family_name, tiny):
    model, _, _ = build(tiny, "standard", family_name)
    family = FAMILIES[family_name]
    depths, embeddings = parts.depths(model, family), parts.embeddings(model, family)
    head = {n for n, _ in model.named_parameters() if parts.of_head(n, family, QA)}
    assert embeddings and head and not embeddings & head and not head & depths.keys()
    # ALBERT's layers are one block that is used again and again.
    blocks = 1 if family_name == "albert" else 2
    assert {depths[name] for name in embeddings} == {blocks}
    assert set(depths.values()) == set(range(blocks + 1))
    rest = {n for n, _ in model.named_parameters()} - head - depths.keys()
    # Norms around the stack of blocks.
    assert all("norm" in name.lower() or "ln_f" in name for name in rest), rest
    words = model.get_input_embeddings().weight
    assert any(model.get_parameter(name) is words for name in embeddings)


def test_adapters_are_in_the_block_that_they_are_on(tiny):
    model, _, _ = build(tiny, "lora", "bert")
    depths = parts.depths(model, FAMILIES["bert"])
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    of_head = {n for n in trained if parts.of_head(n, FAMILIES["bert"], QA)}
    assert {depths[n] for n in trained - of_head} == {0, 1}
    assert all(depths[n] == (0 if ".layer.1." in n else 1) for n in trained - of_head)
    assert len(of_head) == 2 and not of_head & depths.keys()


def gradients(model, batch):
    torch.manual_seed(3)
    value = loss_of(model.train(), batch)
    value.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    model.zero_grad()
    return value.detach(), grads


WITHOUT_CHECKPOINTS = {"albert", "mpnet"}


@pytest.mark.parametrize("family_name", sorted(FAMILIES))
def test_whether_gradients_can_be_checkpointed_is_known_from_the_config(family_name, tiny):
    config = AutoConfig.from_pretrained(tiny(family_name))
    assert parts.can_checkpoint(config) == (family_name not in WITHOUT_CHECKPOINTS)


CELLS = [
    pytest.param(technique, family, marks=() if quick(technique, family) else pytest.mark.long)
    for technique in DECLARED
    for family in sorted(FAMILIES)
    if QA in FAMILIES[family].heads
    and FAMILIES[family].refusal(technique, QA) is None
    and family not in WITHOUT_CHECKPOINTS
]


@pytest.mark.parametrize(("technique", "family_name"), CELLS)
def test_checkpointed_gradients_are_the_same(technique, family_name, tiny):
    """Also with dropout, and where nothing below the technique's parameters needs a gradient."""
    from common.models.cpu_kernels import quicken

    model, _, batch = build(tiny, technique, family_name)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    model = quicken(model)
    loss, plain = gradients(model, batch)
    parts.checkpoint_gradients(model)
    again, checkpointed = gradients(model, batch)
    # The blocks of a decoder add up their gradients of the encoder's output in another order, and torch multiplies the
    # strided tensors of an attention in another order where they need no gradient, on some processors alone.
    tolerance = 1e-5
    assert plain.keys() == checkpointed.keys()
    torch.testing.assert_close(again, loss, rtol=tolerance, atol=tolerance)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=tolerance, atol=tolerance)


def test_blocks_are_computed_again_in_the_backward_pass(tiny):
    model, _, batch = build(tiny, "lora", "bert")
    parts.checkpoint_gradients(model)
    layers = [m for m in model.modules() if type(m).__name__ == "BertSelfAttention"]
    calls = []
    for layer in layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    gradients(model, batch)
    assert len(calls) == 2 * len(layers)
