"""The same training on a CPU in less time: dropout, attention with dropout, and linear layers with LoRA or LoHa.

Figures and what else was tried stand in docs/PERFORMANCE.md. `quicken` puts these in the place of what torch and PEFT do;
parameters keep their names, and where a case is not the common one (another precision, several adapters, a GPU), the
replaced code runs as before.
"""

import ctypes
import math

import torch
from peft.tuners import loha, lora
from torch import nn
from torch.nn.functional import linear
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_quick"
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_memory(kept: bool = True) -> None:
    """Let this process keep the memory that it frees, or give it back again; where the C library is not glibc, nothing happens.

    Tensors over 32 MiB are else mapped anew each time they are made, and the kernel writes zeros to each of their pages:
    up to a third of a training step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0 if kept else 65_536)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1 if kept else 64 * 2**20)


def quicken(model: nn.Module) -> nn.Module:
    """Make a model, a technique on it or not, train faster on a CPU; in place, and returned."""
    classes = {nn.Dropout: Dropout, lora.Linear: LoraLinear, loha.layer.Linear: LohaLinear}
    for module in model.modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]
        config = getattr(module, "config", None)
        if getattr(config, "_attn_implementation", None) == "sdpa":
            config._attn_implementation = ATTENTION
    return model


def kept(shape: torch.Size, p: float) -> torch.Tensor:
    """A float32 tensor that is 0 with probability p, rounded to 1/65,536, else 1.

    Four values come from one draw of torch's generator: `bernoulli_`, which takes one each, is a tenth of the time of
    training a small BERT. Not a Boolean one: to choose by it takes five times as long as to multiply.
    """
    n = math.prod(shape)
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:n]
    return words.ge_(round(p * 2**16) - 2**15).view(shape).float()


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, p):
        factors = kept(x.shape, p).mul_(1 / (1 - p))
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx, grad):
        (factors,) = ctx.saved_tensors
        return grad * factors, None


class Dropout(nn.Dropout):
    """nn.Dropout with other random numbers."""

    def forward(self, x):
        if not self.training or not 0 < self.p < 1 or not _plain(x):
            return super().forward(x)
        return _Dropped.apply(x, self.p)


class _Attended(torch.autograd.Function):
    """Attention with dropout on its weights. torch has no fused kernel for it on a CPU and spends most of the time on masks.

    One row of the batch at a time, so that what lies between two products stays in the cache. Kept for the backward pass
    are the weights alone, negative where they were dropped.
    """

    @staticmethod
    def forward(ctx, query, key, value, bias, p, scaling):
        # (batch, heads, length, size)
        query, key, value = query * scaling, key.contiguous(), value.contiguous()
        signed = query.new_empty(*query.shape[:3], key.shape[2])
        scores = torch.empty_like(signed[0])
        out = torch.empty_like(query)
        if bias is not None:
            bias = bias.expand(len(query), -1, -1, -1)
        for i, weights in enumerate(signed):
            torch.bmm(query[i], key[i].mT, out=scores)
            if bias is not None:
                scores.add_(bias[i])
            torch.softmax(scores, dim=-1, out=weights)
            dropped = kept(weights.shape, p).mul_(weights)
            torch.bmm(dropped, value[i], out=out[i])
            weights.neg_().add_(dropped, alpha=2)
        out.mul_(1 / (1 - p))
        ctx.save_for_backward(query, key, value, signed, out)
        ctx.p, ctx.scaling = p, scaling
        return out

    @staticmethod
    def backward(ctx, grad):
        query, key, value, signed, out = ctx.saved_tensors
        # What softmax's gradient takes away from each row: the sum over its keys of weight x gradient.
        sums = (grad * out).sum(dim=-1, keepdim=True)
        grad = grad / (1 - ctx.p)
        grads = query_grad, key_grad, value_grad = [torch.empty_like(x) for x in (query, key, value)]
        scores, weights = torch.empty_like(signed[0]), torch.empty_like(signed[0])
        for i in range(len(signed)):
            dropped = torch.clamp_min(signed[i], 0, out=weights)
            torch.bmm(dropped.mT, grad[i], out=value_grad[i])
            torch.bmm(grad[i], value[i].mT, out=scores).mul_(dropped)
            scores.addcmul_(torch.abs(signed[i], out=weights), sums[i], value=-1)
            torch.bmm(scores, key[i], out=query_grad[i])
            torch.bmm(scores.mT, query[i], out=key_grad[i])
        query_grad.mul_(ctx.scaling)
        return *grads, None, None, None


def attention(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, position_bias=None, **kwargs
):
    """transformers' scaled dot-product attention; query, key, value: (batch, heads, length, size)."""
    causal = kwargs.get("is_causal") or getattr(module, "is_causal", False)
    grouped = getattr(module, "num_key_value_groups", 1) > 1
    if not 0 < dropout < 1 or causal or grouped or position_bias is not None or not _plain(query):
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
    bias = attention_mask
    if bias is not None and bias.dtype == torch.bool:
        # Not minus infinity, of which a row without any key would make NaN.
        bias = torch.where(bias, 0.0, torch.finfo(query.dtype).min)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = _Attended.apply(query, key, value, bias, dropout, scaling)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class _Updated(torch.autograd.Function):
    """x (W + s B A)' + b: the update is added to the weight, which is smaller than the batch, and not to the result."""

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scale):
        updated = torch.addmm(weight, b, a, alpha=scale)
        ctx.save_for_backward(x, updated, a, b)
        ctx.scale = scale
        return linear(x, updated, bias)

    @staticmethod
    def backward(ctx, grad):
        x, updated, a, b = ctx.saved_tensors
        rows, x_rows = grad.flatten(0, -2), x.flatten(0, -2)
        # Nothing below the first layer is trained.
        x_grad = (rows @ updated).view(x.shape) if ctx.needs_input_grad[0] else None
        a_grad = torch.mm((rows @ b).T, x_rows).mul_(ctx.scale)
        b_grad = torch.mm(rows.T, x_rows @ a.T).mul_(ctx.scale)
        return x_grad, None, None, a_grad, b_grad, None


class LoraLinear(lora.Linear):
    """PEFT's linear layer with LoRA."""

    def forward(self, x, *args, **kwargs):
        name = _only_adapter(self, self.lora_A, x)
        usual = name and not (self.training and isinstance(self.lora_dropout[name], nn.Dropout))
        if not usual or args or kwargs or self.lora_variant or self.fan_in_fan_out or self.lora_bias[name]:
            return super().forward(x, *args, **kwargs)
        base = self.base_layer
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        return _Updated.apply(x, base.weight, base.bias, a, b, self.scaling[name])


class LohaLinear(loha.layer.Linear):
    """PEFT's linear layer with LoHa, which multiplies the input with the weight and its update in turn."""

    def forward(self, x, *args, **kwargs):
        name = _only_adapter(self, self.hada_w1_a, x)
        if not name or args or kwargs or (self.training and self.module_dropout[name]):
            return super().forward(x, *args, **kwargs)
        rank_dropout = self.training and bool(self.rank_dropout[name])
        update = self.get_delta_weight(name, apply_rank_dropout=rank_dropout)
        return linear(x, self.base_layer.weight + update, self.base_layer.bias)


def _only_adapter(layer, adapters, x: torch.Tensor) -> str | None:
    """The name of the one adapter that acts on x in a linear layer, None where several do or none."""
    active = [name for name in layer.active_adapters if name in adapters]
    base = layer.base_layer
    usual = type(base) is nn.Linear and base.weight.dtype == torch.float32 and not base.weight.requires_grad
    return active[0] if len(active) == 1 and usual and _plain(x) and not _switched_off(layer) else None


def _switched_off(layer) -> bool:
    return layer.disable_adapters or layer.merged


def _plain(x: torch.Tensor) -> bool:
    """Whether a tensor is computed with as it is: float32, on the CPU, no mixed precision."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
