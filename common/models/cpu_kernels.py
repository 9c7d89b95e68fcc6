"""The same training on a CPU in less time: dropout, attention with dropout, and linear layers with LoRA or LoHa.

docs/PERFORMANCE.md has the figures and what else was tried. `quicken` replaces code of torch and PEFT by these; parameters
keep their names, and outside the common case (another precision, several adapters, a GPU) the replaced code runs.
"""

import ctypes
import itertools
import math
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners import loha, lora
from torch import nn
from torch.autograd.function import FunctionCtx
from torch.nn.functional import linear
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

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
    classes = {nn.Dropout: Dropout, lora.Linear: LoraLinear, loha.layer.Linear: LohaLinear}
    for module in model.modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]
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
        if not self.training or not _droppable(self.p) or not _plain(x):
            return super().forward(x)
        return _Dropped.apply(x, self.p)


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
        # (batch, heads, length, size)
        batch, heads, length, size = query.shape
        out = query.new_empty(batch, length, heads, size)
        scores_, weights_ = query.new_empty(2, heads * _most(parts))
        drawn = []
        for row, queries, keys in parts:
            q, k, v = query[row, :, queries], key[row, :, keys], value[row, :, keys]
            shape = heads, q.shape[1], k.shape[1]
            scores, weights = _fitted(scores_, shape), _fitted(weights_, shape)
            _weights(q, k, None if bias is None else bias[row], scaling, scores, weights)
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
        query_grad = torch.empty_like(grad)
        key_grad, value_grad = (x.new_zeros(x.transpose(1, 2).shape) for x in (key, value))
        scores_, weights_, dropped_ = query.new_empty(3, heads * _most(ctx.parts))
        for i, (row, queries, keys) in enumerate(ctx.parts):
            q, k, v = query[row, :, queries], key[row, :, keys], value[row, :, keys]
            g = grad[row, queries].transpose(0, 1)
            shape = heads, q.shape[1], k.shape[1]
            scores, weights, dropped = (_fitted(x, shape) for x in (scores_, weights_, dropped_))
            _weights(q, k, None if bias is None else bias[row], ctx.scaling, scores, weights)
            kept(drawn[2 * i : 2 * i + 2], dropped).mul_(weights)
            torch.mul(torch.bmm(dropped.mT, g).transpose(0, 1), scale, out=value_grad[row, keys])
            torch.baddbmm(scores, g, v.mT, beta=0, alpha=scale, out=scores).mul_(dropped)
            scores.addcmul_(weights, sums[row, :, queries], value=-1)
            torch.mul(torch.bmm(scores, k).transpose(0, 1), ctx.scaling, out=query_grad[row, queries])
            torch.mul(torch.bmm(scores.mT, q).transpose(0, 1), ctx.scaling, out=key_grad[row, keys])
        return *(x.transpose(1, 2) for x in (query_grad, key_grad, value_grad)), None, None, None, None


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
    if bounds is not None and not (_droppable(dropout) and _plain(query)):
        return _attended_jagged(query, key, value, bounds, kwargs["max_length_q"], dropout, scaling), None
    causal = kwargs.get("is_causal") or getattr(module, "is_causal", False)
    grouped = getattr(module, "num_key_value_groups", 1) > 1
    if not _droppable(dropout) or causal or grouped or position_bias is not None or not _plain(query):
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
    length, counts, bias = query.shape[2], [key.shape[2]] * len(key), None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if bounds is not None:
        sequences = [slice(begin, end) for begin, end in itertools.pairwise(bounds.tolist())]
        return _Attended.apply(
            query, key, value, None, [(0, s, s) for s in sequences], dropout, scaling
        ), None
    if attention_mask is not None:
        if (found := _key_counts(attention_mask)) is not None:
            counts = found
        else:
            bias = attention_mask
            if bias.dtype == torch.bool:
                # Not minus infinity, which would turn a row without any key into NaN.
                bias = torch.where(bias, 0.0, torch.finfo(query.dtype).min)
            bias = bias.expand(len(query), -1, -1, -1)
    parts = [(row, slice(0, length), slice(0, n)) for row, n in enumerate(counts)]
    return _Attended.apply(query, key, value, bias, parts, dropout, scaling), None


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
    plain = torch.equal(first, torch.arange(mask.shape[-1]) < counts) and bool((mask == first).all())
    return counts.flatten().tolist() if plain and counts.min() else None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class _Updated(torch.autograd.Function):
    """x (W + s B A)' + b: the update is added to the weight, which is smaller than the batch, and not to the result."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        updated = torch.addmm(weight, b, a, alpha=scale)
        ctx.save_for_backward(x, updated, a, b)
        ctx.scale = scale
        out = linear(x, updated, bias)
        # The same tensor, but no view of another one: Longformer changes it in place.
        return torch.ops.aten._unsafe_view(out, out.shape)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, updated, a, b = ctx.saved_tensors
        rows, x_rows = grad.flatten(0, -2), x.flatten(0, -2)
        # No parameter below the first layer is trained.
        x_grad = (rows @ updated).view(x.shape) if ctx.needs_input_grad[0] else None
        a_grad = torch.mm((rows @ b).T, x_rows).mul_(ctx.scale)
        # Not rows' (x a'), which reads `rows` along its long side and takes nearly twice as long.
        b_grad = torch.mm((x_rows @ a.T).T, rows).mul_(ctx.scale).T
        return x_grad, None, None, a_grad, b_grad, None


@contextmanager
def updates_held(model: nn.Module) -> Iterator[None]:
    """Layers with LoRA or LoHa compute their updated weight once instead of for every batch, while nothing is trained."""
    layers = [module for module in model.modules() if isinstance(module, (LoraLinear, LohaLinear))]
    for layer in layers:
        layer.held = {}
    try:
        yield
    finally:
        for layer in layers:
            layer.held = None


class LoraLinear(lora.Linear):
    """PEFT's linear layer with LoRA."""

    held: dict[str, torch.Tensor] | None = None
    """Adapter → updated weight, while nothing is trained."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        name = _only_adapter(self, self.lora_A, x)
        if name is None or args or kwargs or self.lora_variant or self.fan_in_fan_out or self.lora_bias[name]:
            return super().forward(x, *args, **kwargs)
        if self.training and isinstance(self.lora_dropout[name], nn.Dropout):
            return super().forward(x, *args, **kwargs)
        base = self.base_layer
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        if self.held is not None:
            if name not in self.held:
                self.held[name] = torch.addmm(base.weight, b, a, alpha=self.scaling[name])
            return linear(x, self.held[name], base.bias)
        return _Updated.apply(x, base.weight, base.bias, a, b, self.scaling[name])


class LohaLinear(loha.layer.Linear):
    """PEFT's linear layer with LoHa. PEFT's own forward multiplies the input by the weight and then by its update."""

    held: dict[str, torch.Tensor] | None = None
    """Adapter → updated weight, while nothing is trained."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        name = _only_adapter(self, self.hada_w1_a, x)
        if name is None or args or kwargs or (self.training and self.module_dropout[name]):
            return super().forward(x, *args, **kwargs)
        if self.held is not None and name in self.held:
            return linear(x, self.held[name], self.base_layer.bias)
        rank_dropout = self.training and bool(self.rank_dropout[name])
        update = self.get_delta_weight(name, apply_rank_dropout=rank_dropout)
        updated = self.base_layer.weight + update
        if self.held is not None:
            self.held[name] = updated
        return linear(x, updated, self.base_layer.bias)


def _only_adapter(layer: nn.Module, adapters: Container[str], x: torch.Tensor) -> str | None:
    """The name of the only adapter that acts on x in a linear layer; None where several or none do."""
    active = [name for name in layer.active_adapters if name in adapters]
    base = layer.base_layer
    usual = type(base) is nn.Linear and base.weight.dtype == torch.float32 and not base.weight.requires_grad
    return active[0] if len(active) == 1 and usual and _plain(x) and not _switched_off(layer) else None


def _switched_off(layer: nn.Module) -> bool:
    return layer.disable_adapters or layer.merged


def _plain(x: torch.Tensor) -> bool:
    """Whether a tensor is float32, on the CPU and outside of mixed precision."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
