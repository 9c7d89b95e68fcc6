"""The same training on a CPU in less time: dropout, attention with dropout, GELU, and linear layers with a technique.

docs/PERFORMANCE.md has the figures and what else was tried. `quicken` replaces code of torch and PEFT by these; parameters
keep their names, and outside the common case (another precision, several adapters, a GPU) the replaced code runs.
"""

import ctypes
import itertools
import math
from typing import Any

import torch
from peft.tuners import lora
from peft.tuners.adalora import SVDLinear
from torch import nn
from torch.autograd.function import FunctionCtx
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.activations import NewGELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention

from . import quick_updates
from .cpu_adapters import AdaLoraLinear, LoraLinear, plain, rounded_class
from .families import FAMILIES
from .products import rounding

ATTENTION = f"sdpa_quick_{__package__}"
"""A name that differs in stored copies of this package, which run in the same process."""
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

Part = tuple[int, slice, slice]
"""A sequence: its row of the batch, the slice of its queries and that of its keys."""


def keep_memory(kept: bool = True) -> None:
    """Let this process keep the memory that it frees, or give it back again. Without glibc, nothing happens.

    Otherwise each tensor over 32 MiB gets fresh pages, which the kernel fills with zeros: up to a third of a training step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0 if kept else 65_536)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1 if kept else 64 * 2**20)


def quicken(model: nn.Module) -> nn.Module:
    """Make a model, with or without a technique on it, train faster on a CPU. It is changed in place and returned."""
    classes: dict[type, type] = {
        nn.Dropout: Dropout,
        NewGELUActivation: TanhGelu,
        MPNetSelfAttention: MpnetAttention,
        lora.Linear: LoraLinear,
        SVDLinear: AdaLoraLinear,
        **quick_updates.CLASSES,
    }
    model_config: Any = getattr(model, "config", None)
    family = FAMILIES.get(getattr(model_config, "model_type", ""))
    overwritten = family is not None and family.overwrites_results
    for module in model.modules():
        kind = classes.get(type(module))
        if kind is None and rounding():
            kind = rounded_class(module)
        # DoRA's backward pass needs the result of the layer.
        if kind is LoraLinear and module.lora_variant and overwritten:
            continue
        if kind is not None:
            module.__class__ = kind
        config: Any = getattr(module, "config", None)
        if getattr(config, "_attn_implementation", None) == "sdpa":
            config._attn_implementation = ATTENTION
    return model


def draw(shape: torch.Size, p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Random bytes of a shape, and for each row (the last dimension) the byte from which on a value is kept.

    One draw of torch's generator gives eight bytes. `bernoulli_`, with one draw for each value, takes a tenth of the time
    of training a small BERT. 256 p need not be whole, so a row's bound is drawn from the two bytes around it, and each
    value is dropped with probability p. p: at most 255/256.
    """
    n, (low, part) = math.prod(shape), divmod(256 * p, 1)
    drawn = (
        torch.empty((n + 7) // 8, dtype=torch.int64).random_(-(2**63), None).view(torch.int8)[:n].view(shape)
    )
    return drawn, (torch.rand(*shape[:-1], 1) < part).to(torch.int8).add_(int(low) - 128)


def kept(drawn: tuple[torch.Tensor, torch.Tensor], out: torch.Tensor) -> torch.Tensor:
    """1 where a value is kept, 0 elsewhere, as floats: selecting by Booleans takes five times as long as multiplying."""
    return torch.ge(*drawn, out=out)


def _droppable(p: float) -> bool:
    return 0 < p <= 255 / 256


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, p: float) -> torch.Tensor:
        factors = kept(draw(x.shape, p), torch.empty(x.shape)).mul_(1 / (1 - p))
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (factors,) = ctx.saved_tensors
        return grad * factors, None


class Dropout(nn.Dropout):
    """nn.Dropout with other random numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not _droppable(self.p) or not plain(x):
            return super().forward(x)
        return _Dropped.apply(x, self.p)


class TanhGelu(NewGELUActivation):
    """GELU by tanh, as GPT-2 and T5 v1.1 have it, in one pass instead of eight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(x, approximate="tanh")


class _Attended(torch.autograd.Function):
    """Attention with dropout on its weights. torch has no fused kernel for it on a CPU and spends most of the time on masks.

    It takes one sequence at a time, each with its own keys only, so that the values between two products stay in the cache.
    The backward pass computes the weights again and keeps only the bytes that decided on dropping: a quarter of the weights'
    memory.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        parts: list[Part],
        p: float,
        scaling: float,
    ) -> torch.Tensor:
        # query, key, value: (batch, heads, length, size); bias: (1 or batch, 1 or heads, 1 or length, length of the keys)
        batch, heads, length, size = query.shape
        # Zeros for queries of padding, which no part has.
        out = query.new_zeros(batch, length, heads, size)
        scores_, weights_ = query.new_empty(2, heads * _most(parts))
        drawn = []
        for row, queries, keys in parts:
            q, k, v = query[row, :, queries], key[row, :, keys], value[row, :, keys]
            shape = heads, q.shape[1], k.shape[1]
            scores, weights = _fitted(scores_, shape), _fitted(weights_, shape)
            _weights(q, k, _of(bias, row, queries, keys), scaling, scores, weights)
            drawn.append(draw(shape, p))
            attended = torch.bmm(kept(drawn[-1], scores).mul_(weights), v)
            torch.mul(attended.transpose(0, 1), 1 / (1 - p), out=out[row, queries])
        ctx.save_for_backward(query, key, value, bias, out, *(tensor for pair in drawn for tensor in pair))
        ctx.parts, ctx.p, ctx.scaling = parts, p, scaling
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, bias, out, *drawn = ctx.saved_tensors
        heads, scale = query.shape[1], 1 / (1 - ctx.p)
        # Softmax's gradient subtracts from each row the sum over its keys of weight x gradient.
        sums = (grad * out).sum(dim=-1, keepdim=True).transpose(1, 2)
        # Like `grad` (batch, length, heads, size), as the layers below take it. Keys without a query get zeros.
        query_grad = torch.zeros_like(grad)
        key_grad, value_grad = (x.new_zeros(x.transpose(1, 2).shape) for x in (key, value))
        bias_grad = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        scores_, weights_, dropped_ = query.new_empty(3, heads * _most(ctx.parts))
        for i, (row, queries, keys) in enumerate(ctx.parts):
            q, k, v = query[row, :, queries], key[row, :, keys], value[row, :, keys]
            g = grad[row, queries].transpose(0, 1)
            shape = heads, q.shape[1], k.shape[1]
            scores, weights, dropped = (_fitted(x, shape) for x in (scores_, weights_, dropped_))
            _weights(q, k, _of(bias, row, queries, keys), ctx.scaling, scores, weights)
            kept(drawn[2 * i : 2 * i + 2], dropped).mul_(weights)
            torch.mul(torch.bmm(dropped.mT, g).transpose(0, 1), scale, out=value_grad[row, keys])
            torch.baddbmm(scores, g, v.mT, beta=0, alpha=scale, out=scores).mul_(dropped)
            scores.addcmul_(weights, sums[row, :, queries], value=-1)
            if (part := _of(bias_grad, row, queries, keys)) is not None:
                part += scores.sum_to_size(part.shape)
            torch.mul(torch.bmm(scores, k).transpose(0, 1), ctx.scaling, out=query_grad[row, queries])
            torch.mul(torch.bmm(scores.mT, q).transpose(0, 1), ctx.scaling, out=key_grad[row, keys])
        return *(x.transpose(1, 2) for x in (query_grad, key_grad, value_grad)), bias_grad, None, None, None


def _of(bias: torch.Tensor | None, row: int, queries: slice, keys: slice) -> torch.Tensor | None:
    """What of a bias belongs to a part: (1 or heads, queries, keys)."""
    return None if bias is None else bias[row % len(bias), :, queries, keys]


def _most(parts: list[Part]) -> int:
    """The largest number of weights that one head has in a part."""
    return max((q.stop - q.start) * (k.stop - k.start) for _, q, k in parts)


def _fitted(buffer: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return buffer[: math.prod(shape)].view(shape)


def _weights(
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float,
    scores: torch.Tensor,
    weights: torch.Tensor,
) -> None:
    """Write softmax(query key' scaling + bias) into `weights`; `scores` is a buffer for the values before the softmax."""
    torch.baddbmm(scores, query, key.mT, beta=0, alpha=scaling, out=scores)
    if bias is not None:
        scores.add_(bias)
    torch.softmax(scores, dim=-1, out=weights)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """transformers' scaled dot-product attention; query, key, value: (batch, heads, length, size).

    With `cu_seq_lens_q` the only row holds several sequences end to end (packing.py); it says where each begins, and where
    the last one ends.
    """
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is not None and not (_droppable(dropout) and plain(query)):
        return _attended_jagged(query, key, value, bounds, kwargs["max_length_q"], dropout, scaling), None
    causal = kwargs.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", False)
    # torch does not say where the queries of a causal mask stand among more keys.
    unplaced = causal and attention_mask is None and query.shape[2] != key.shape[2]
    grouped = getattr(module, "num_key_value_groups", 1) > 1
    if not _droppable(dropout) or unplaced or grouped or not plain(query):
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            position_bias=position_bias,
            **kwargs,
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if bounds is not None:
        sequences = [slice(begin, end) for begin, end in itertools.pairwise(bounds.tolist())]
        parts, bias = [(0, s, s) for s in sequences], None
    else:
        parts, bias = _parted(query.shape, key.shape[2], attention_mask, causal)
    if position_bias is not None:
        bias = position_bias if bias is None else bias + position_bias
    return _Attended.apply(query, key, value, bias, parts, dropout, scaling), None


def _parted(
    shape: torch.Size, keys: int, mask: torch.Tensor | None, causal: bool
) -> tuple[list[Part], torch.Tensor | None]:
    """Which queries of each row of the batch see which keys, and what is added to their scores: (1 or batch, 1, length, keys).

    shape: the queries'.
    """
    batch, _, length, _ = shape
    everything = slice(0, length)
    if mask is None:
        return [(row, everything, slice(0, keys)) for row in range(batch)], _later(keys) if causal else None
    if (counts := _key_counts(mask)) is not None:
        return [(row, everything, slice(0, n)) for row, n in enumerate(counts)], None
    if causal and (begins := _begins(mask)) is not None:
        return [(row, slice(n, length), slice(n, keys)) for row, n in enumerate(begins)], _later(keys)
    if mask.dtype == torch.bool:
        # Not minus infinity, which would turn a row without any key into NaN.
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    return [(row, everything, slice(0, keys)) for row in range(batch)], mask


def _later(length: int) -> torch.Tensor:
    """What keeps queries from keys that come after them, to be added to their scores."""
    return torch.full((length, length), torch.finfo(torch.float32).min).triu_(1)[None, None]


class MpnetAttention(MPNetSelfAttention):
    """MPNet's attention through `attention`."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...]:
        if output_attentions or position_bias is None:
            return super().forward(hidden_states, attention_mask, position_bias, output_attentions, **kwargs)
        shape = *hidden_states.shape[:-1], -1, self.attention_head_size
        query, key, value = (
            layer(hidden_states).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        attended, _ = attention(
            self,
            query,
            key,
            value,
            # 0 for what is seen, the lowest number for padding.
            None if attention_mask is None else attention_mask >= 0,
            dropout=self.dropout.p if self.training else 0.0,
            # MPNet repeats it for each row of the batch.
            position_bias=position_bias[:1],
            is_causal=False,
        )
        return (self.o(attended.flatten(2)),)


def _attended_jagged(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """torch's attention over sequences of different lengths: on a GPU in half precision, a single flash kernel."""

    def jagged(x: torch.Tensor) -> torch.Tensor:
        values = x[0].transpose(0, 1).contiguous()
        return torch.nested.nested_tensor_from_jagged(
            values, bounds, min_seqlen=1, max_seqlen=longest
        ).transpose(1, 2)

    out = torch.nn.functional.scaled_dot_product_attention(
        jagged(query), jagged(key), jagged(value), dropout_p=dropout, scale=scaling
    )
    return out.transpose(1, 2).values().unsqueeze(0)


def _key_counts(mask: torch.Tensor) -> list[int] | None:
    """For each row, how many keys (from the first on) its mask allows to every query; None for other kinds of masks."""
    if mask.dtype != torch.bool:
        return None
    first = mask[:, :1, :1]
    counts = first.sum(-1, keepdim=True)
    from_first = torch.equal(first, torch.arange(mask.shape[-1]) < counts) and bool((mask == first).all())
    return counts.flatten().tolist() if from_first and counts.min() else None


def _begins(mask: torch.Tensor) -> list[int] | None:
    """For each row of a causal mask, where its text begins, padding on the left; None for other masks."""
    if mask.dtype != torch.bool or mask.shape[1] != 1 or mask.shape[2] != mask.shape[3]:
        return None
    own = mask.diagonal(dim1=2, dim2=3)
    begins = (~own).sum(-1).flatten()
    place = torch.arange(mask.shape[3])
    seen = (place[:, None] >= place) & (place >= begins[:, None, None])
    return begins.tolist() if torch.equal(mask[:, 0], seen) and begins.max() < len(place) else None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
