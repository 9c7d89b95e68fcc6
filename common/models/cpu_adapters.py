"""Linear layers, and those with LoRA, DoRA or AdaLoRA as PEFT has them, in less time on a CPU (cpu_kernels.py)."""

from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners import lora
from peft.tuners.adalora import SVDLinear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import nn
from torch.autograd.function import FunctionCtx
from transformers.pytorch_utils import Conv1D

from .products import multiplied, of_rows, product, rounded, rounding, rows_of

NARROW = 64
"""A layer with fewer inputs or outputs stays in float32: it takes hardly any time, and a head's logits stay exact."""


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
        rows, updated = rows_of(x), rounded(torch.addmm(weight, b, a, alpha=scale))
        ctx.save_for_backward(rows, updated, a, b)
        ctx.scale = scale
        return multiplied(rows, updated, bias, x.shape)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_rows, updated, a, b = ctx.saved_tensors
        rows = rows_of(grad)
        # No parameter below the first layer is trained.
        x_grad = of_rows(rows @ updated, grad.shape) if ctx.needs_input_grad[0] else None
        a_grad = torch.mm((rows @ rounded(b)).T, x_rows).float().mul_(ctx.scale)
        # Not rows' (x a'), which reads `rows` along its long side and takes nearly twice as long.
        b_grad = torch.mm((x_rows @ rounded(a).T).T, rows).float().mul_(ctx.scale).T
        bias_grad = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return x_grad, None, bias_grad, a_grad, b_grad, None


class _Lengthened(torch.autograd.Function):
    """x (c (W + s B A))' + b, where c gives each row of the weight the length l: DoRA. As in its paper (section 4.3), the
    length that a row has without c counts as a constant."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        length: torch.Tensor,
    ) -> torch.Tensor:
        updated, factor = _lengthened(weight, a, b, scale, length)
        rows, updated = rows_of(x), rounded(updated)
        out = multiplied(rows, updated, bias, x.shape)
        ctx.save_for_backward(rows, updated, bias, a, b, length, factor, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_rows, updated, bias, a, b, length, factor, out = ctx.saved_tensors
        exact, rows = grad.flatten(0, -2), rows_of(grad)
        x_grad = of_rows(rows @ updated, grad.shape) if ctx.needs_input_grad[0] else None
        # c goes into the small matrices: the gradient of a row of the weight is not needed itself.
        column = factor[:, None]
        a_grad = torch.mm((rows @ rounded(column * b)).T, x_rows).float().mul_(ctx.scale)
        b_grad = torch.mm((x_rows @ rounded(a).T).T, rows).float().mul_(ctx.scale).T * column
        length_grad = (exact * out.flatten(0, -2)).sum(0)
        bias_grad = None
        if bias is not None:
            bias_grad = exact.sum(0)
            length_grad.addcmul_(bias, bias_grad, value=-1)
        return x_grad, None, bias_grad, a_grad, b_grad, None, length_grad.div_(length)


def _lengthened(
    weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, length: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the updated weight with rows of these lengths, what its rows were multiplied by)."""
    updated = torch.addmm(weight, b, a, alpha=scale)
    factor = length / torch.linalg.vector_norm(updated, dim=1)
    return updated.mul_(factor[:, None]), factor


class Holding(nn.Module):
    """A linear layer that can hold its updated weight instead of computing it for every batch."""

    held: dict[str, torch.Tensor] | None = None
    """Adapter → updated weight, `rounded`, while nothing is trained."""


@contextmanager
def updates_held(model: nn.Module) -> Iterator[None]:
    """Layers with an update compute their updated weight once instead of for every batch, while nothing is trained."""
    layers = [module for module in model.modules() if isinstance(module, Holding)]
    for layer in layers:
        layer.held = {}
    try:
        yield
    finally:
        for layer in layers:
            layer.held = None


class RoundedLinear(Holding, nn.Linear):
    """torch's linear layer, whose product is in bf16 if products take that (products.py)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _of_layer(self, x, self.weight) if _rounds(x) else super().forward(x)


class RoundedConv1D(Holding, Conv1D):
    """GPT-2's linear layer in the same way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _of_layer(self, x, self.weight.T) if _rounds(x) else super().forward(x)


LINEAR = (nn.Linear, RoundedLinear)
TRANSPOSED = (Conv1D, RoundedConv1D)
"""Their weight is (in, out)."""


def _rounds(x: torch.Tensor) -> bool:
    return rounding() and plain(x)


def _of_layer(layer: RoundedLinear | RoundedConv1D, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x through a layer without a technique; weight: (out, in)."""
    if layer.held is None:
        return product(x, weight, layer.bias)
    if "" not in layer.held:
        layer.held[""] = rounded(weight)
    return multiplied(rows_of(x), layer.held[""], layer.bias, x.shape)


def rounded_class(layer: nn.Module) -> type[Holding] | None:
    """The class that a layer of this kind and size takes where products are in bf16; None for other layers."""
    classes: dict[type, type[Holding]] = {nn.Linear: RoundedLinear, Conv1D: RoundedConv1D}
    wide = type(layer) in classes and min(layer.weight.shape) >= NARROW
    return classes[type(layer)] if wide else None


class LoraLinear(Holding, lora.Linear):
    """PEFT's linear layer with LoRA or DoRA."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        name = only_adapter(self, self.lora_A, x, of=(*LINEAR, *TRANSPOSED))
        if name is None or args or kwargs or self.lora_bias[name]:
            return super().forward(x, *args, **kwargs)
        variant = self.lora_variant.get(name)
        known = variant is None or (isinstance(variant, DoraLinearVariant) and not self.fan_in_fan_out)
        if _drops(self, name) or not known:
            return super().forward(x, *args, **kwargs)
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        length = self.lora_magnitude_vector[name].weight if variant else None
        return _through(self, name, x, a, b, self.scaling[name], length)


class AdaLoraLinear(Holding, SVDLinear):
    """PEFT's linear layer with AdaLoRA."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        name = only_adapter(self, self.lora_A, x)
        if name is None or args or kwargs or self.fan_in_fan_out or _drops(self, name):
            return super().forward(x, *args, **kwargs)
        a = self.lora_A[name] * self.lora_E[name]
        scale = self.scaling[name] / (self.ranknum[name].item() + 1e-5)
        return _through(self, name, x, a, self.lora_B[name], scale)


def _drops(layer: nn.Module, name: str) -> bool:
    """Whether a layer drops a part of what goes into its update."""
    return layer.training and isinstance(layer.lora_dropout[name], nn.Dropout)


def _through(
    layer: LoraLinear | AdaLoraLinear,
    name: str,
    x: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float,
    length: torch.Tensor | None = None,
) -> torch.Tensor:
    """x through a layer whose weight has the update scale b a, and then rows of a length; a: (rank, in), b: (out, rank)."""
    base = layer.base_layer
    weight = base.weight.T if isinstance(base, TRANSPOSED) else base.weight
    if layer.held is None:
        if length is None:
            return _Updated.apply(x, weight, base.bias, a, b, scale)
        return _Lengthened.apply(x, weight, base.bias, a, b, scale, length)
    if name not in layer.held:
        if length is None:
            updated = torch.addmm(weight, b, a, alpha=scale)
        else:
            updated, _ = _lengthened(weight, a, b, scale, length)
        layer.held[name] = rounded(updated)
    return multiplied(rows_of(x), layer.held[name], base.bias, x.shape)


def only_adapter(
    layer: nn.Module, adapters: Container[str], x: torch.Tensor, of: tuple[type, ...] = LINEAR
) -> str | None:
    """The name of the only adapter that acts on x in a linear layer of one of these types; None where several or none do."""
    active = [name for name in layer.active_adapters if name in adapters]
    base = layer.base_layer
    usual = type(base) in of and base.weight.dtype == torch.float32 and not base.weight.requires_grad
    return active[0] if len(active) == 1 and usual and plain(x) and not _switched_off(layer) else None


def _switched_off(layer: nn.Module) -> bool:
    return layer.disable_adapters or layer.merged


def plain(x: torch.Tensor) -> bool:
    """Whether a tensor is float32, on the CPU and outside of mixed precision."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
