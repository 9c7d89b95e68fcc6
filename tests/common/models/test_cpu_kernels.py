"""The fast path computes the same as torch and PEFT, gradients included, and is really taken."""

import copy
import math

import pytest
import torch

from common.models import base, cpu_kernels
from common.models.families import FAMILIES
from tests.support.cells import batch_of
from tests.support.techniques import technique as technique_of

ENCODERS = ("bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert")
FURTHER = ("xlm-roberta", "camembert", "albert", "mpnet", "longformer", "bart", "mt5")


def built(tiny, family_name, technique):
    torch.manual_seed(0)
    model, tokenizer = base.load_base(base.resolve_checkpoint(tiny(family_name)))
    family = FAMILIES[family_name]
    model = base.apply(technique_of(technique).method(family), model, family)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return model, batch_of(tokenizer, model.config)


def outputs(model, batch):
    return model(**{name: tensor for name, tensor in batch.items() if name != "labels"})


@torch.no_grad()
def logits(model, batch):
    out = outputs(model, batch)
    return torch.stack([out.start_logits, out.end_logits])


def outcome(model, batch):
    out = outputs(model, batch)
    (out.start_logits.square().mean() + out.end_logits.sin().mean()).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return torch.stack([out.start_logits, out.end_logits]).detach(), grads


@pytest.mark.parametrize("masked", [None, "padding", "holes", "ragged", "float"])
@pytest.mark.parametrize("more_keys", [0, 3])
@pytest.mark.parametrize("positions", [False, True])
def test_attention_is_that_of_the_formula(masked, more_keys, positions, monkeypatch):
    torch.manual_seed(1)
    shape, p = (2, 3, 7, 4), 0.3
    keys = (2, 3, 7 + more_keys, 4)
    query, key, value = (torch.randn(s, requires_grad=True) for s in (shape, keys, keys))
    keep = (torch.rand(2, 3, 7, keys[2]) >= p).float()
    rows = iter(keep)
    monkeypatch.setattr(
        cpu_kernels, "draw", lambda shape, p: (next(rows)[..., : shape[-1]], 0.5 * torch.ones(1))
    )
    mask = None
    if masked:
        mask = torch.ones(2, 1, 7, keys[2], dtype=torch.bool)
        # Also masks that do not allow the same first keys to every query.
        mask[0, ..., {"holes": slice(1, 4)}.get(masked, slice(-2, None))] = False
        mask[1, :, 3, -1] = masked != "ragged"
        mask = mask if masked != "float" else torch.zeros(mask.shape).masked_fill(~mask, -1e9)
    bias = torch.randn(1, 3, 7, keys[2], requires_grad=True) if positions else None
    found, _ = cpu_kernels.attention(
        torch.nn.Module(), query, key, value, mask, dropout=p, position_bias=bias
    )
    scores = query @ key.mT / math.sqrt(4) + (0 if bias is None else bias)
    if mask is not None:
        scores = scores + mask if masked == "float" else scores.masked_fill(~mask, -math.inf)
    expected = ((torch.softmax(scores, -1) * keep / (1 - p)) @ value).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape)
    trained = (query, key, value, *([bias] if positions else []))
    grads, wanted = (torch.autograd.grad((out * weight).sum(), trained) for out in (found, expected))
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want)


@pytest.mark.parametrize("masked", [None, "left", "all", "right", "float"])
@pytest.mark.parametrize("positions", [False, True])
def test_causal_attention_is_that_of_the_formula(masked, positions, monkeypatch):
    torch.manual_seed(1)
    p, length = 0.3, 7
    query, key, value = (torch.randn(2, 3, length, 4, requires_grad=True) for _ in range(3))
    keep = (torch.rand(2, 3, length, length) >= p).float()
    begins = {"left": [0, 3], "all": [2, 2]}.get(masked, [0, 0])
    drawn = iter(
        (rows[:, n:, n:] if masked in ("left", "all") else rows for rows, n in zip(keep, begins, strict=True))
    )
    monkeypatch.setattr(cpu_kernels, "draw", lambda shape, p: (next(drawn), 0.5 * torch.ones(1)))
    seen = torch.ones(length, length, dtype=torch.bool).tril().repeat(2, 1, 1, 1)
    for row, n in enumerate(begins):
        seen[row, ..., :n] = False
    if masked == "right":
        seen[1, ..., -2:] = False
    bias = torch.randn(1, 3, length, length, requires_grad=True) if positions else None
    mask = {None: None, "float": torch.zeros(seen.shape).masked_fill(~seen, -1e9)}.get(masked, seen)
    module = torch.nn.Module()
    module.is_causal = True
    found, _ = cpu_kernels.attention(module, query, key, value, mask, dropout=p, position_bias=bias)
    scores = query @ key.mT / math.sqrt(4) + (0 if bias is None else bias)
    weights = torch.softmax(scores.masked_fill(~seen, -math.inf), -1).nan_to_num()
    expected = ((weights * keep / (1 - p)) @ value).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape)
    trained = (query, key, value, *([bias] if positions else []))
    grads, wanted = (torch.autograd.grad((out * weight).sum(), trained) for out in (found, expected))
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want.nan_to_num())


def test_a_caller_says_whether_attention_is_causal():
    query = torch.randn(1, 2, 5, 4)
    module = torch.nn.Module()
    module.is_causal = True
    outs = {}
    for causal in (None, True, False):
        torch.manual_seed(0)
        outs[causal] = cpu_kernels.attention(
            module, query, query, query, None, dropout=0.1, is_causal=causal
        )[0]
    torch.testing.assert_close(outs[None], outs[True])
    # The last query alone sees all keys in either way.
    torch.testing.assert_close(outs[False][:, -1], outs[True][:, -1])
    assert not torch.allclose(outs[False][:, 0], outs[True][:, 0])


@pytest.mark.parametrize("technique", ["standard", "prefix-tuning"])
# The attention of DeBERTa and Longformer has its own code, which this cannot replace.
@pytest.mark.parametrize(
    "family_name",
    [
        *(name for name in ENCODERS if name != "deberta-v2"),
        "gpt2",
        "t5",
        "mpnet",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("xlm-roberta", "camembert", "albert")),
    ],
)
def test_training_takes_the_fast_attention_and_dropout(family_name, technique, tiny, monkeypatch):
    checkpoint = base.resolve_checkpoint(tiny(family_name))
    dropouts = dict.fromkeys(
        (
            "attention_probs_dropout_prob",
            "hidden_dropout_prob",
            "attention_dropout",
            "dropout",
            "mlp_dropout",
            "attn_pdrop",
            "resid_pdrop",
            "dropout_rate",
        ),
        0.1,
    )
    known = {name: p for name, p in dropouts.items() if hasattr(base.load_config(checkpoint), name)}
    model, tokenizer = base.load_base(checkpoint, **known)
    family = FAMILIES[family_name]
    model = cpu_kernels.quicken(base.apply(technique_of(technique).method(family), model, family)).train()
    shapes = []
    draw = cpu_kernels.draw
    monkeypatch.setattr(cpu_kernels, "draw", lambda shape, p: shapes.append(shape) or draw(shape, p))
    outcome(model, batch_of(tokenizer, model.config))
    assert sum(len(shape) == 3 and shape[0] % 4 == 0 and shape[1] != 32 for shape in shapes) >= 2
    assert sum(shape[-1] in (32, 64) for shape in shapes) >= 2


@pytest.mark.parametrize("family_name", ["gpt2", "t5", "mpnet"])
def test_replaced_modules_give_their_results_and_gradients(family_name, tiny):
    model, batch = built(tiny, family_name, "standard")
    model.eval()
    quick = cpu_kernels.quicken(copy.deepcopy(model))
    classes = {type(module) for module in quick.modules()}
    assert classes & {cpu_kernels.TanhGelu, cpu_kernels.MpnetAttention}
    (found, grads), (expected, expected_grads) = outcome(quick, batch), outcome(model, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], rtol=1e-4, atol=1e-6, msg=name)


def test_dropout_has_its_rate_and_scale_and_repeats_with_the_seed():
    x = torch.ones(301, 1001, requires_grad=True)
    dropout = cpu_kernels.Dropout(0.1)
    torch.manual_seed(3)
    out = dropout(x)
    out.sum().backward()
    dropped = (out == 0).double()
    # Five standard deviations, overall and between neighbours.
    assert abs(dropped.mean() - 0.1) < 5 * math.sqrt(0.09 / x.numel())
    for other in (dropped.roll(1, 1), dropped.roll(4, 1), dropped.roll(1, 0)):
        assert abs(((dropped - 0.1) * (other - 0.1)).mean()) < 5 * 0.09 / math.sqrt(x.numel())
    assert torch.equal(x.grad, out.detach()) and out.max().item() == pytest.approx(1 / 0.9)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), out)
    assert not torch.equal(dropout(x), out)
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_dropouts_edges_are_torchs(p):
    x = torch.ones(1000)
    share = cpu_kernels.Dropout(p)(x).count_nonzero() / 1000
    assert abs(share - (1 - p)) < 0.1 and (p == 0.5 or share == 1 - p)
