"""The matrix products of linear layers on a CPU: in float32, or in bf16 where the processor multiplies it (`--precision bf16`).

Unlike autocast, only a product's factors and its result are rounded, with sums in float32. Other operations, and what is
stored, stay in float32.
"""

import torch
from torch.autograd.function import FunctionCtx
from torch.nn.functional import linear

_rounding = False


def round_products(on: bool) -> None:
    """Let the products of this process take bf16 (`on`), or float32 as at the start."""
    global _rounding
    _rounding = on


def hardware_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 itself. Otherwise torch computes the same, and takes longer than with float32."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))


def rounding() -> bool:
    """Whether products take bf16 now."""
    return _rounding


def rounded(x: torch.Tensor) -> torch.Tensor:
    """A float32 tensor as a factor of a product: in bf16 if products take that, otherwise itself."""
    return x.bfloat16() if _rounding else x


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """The rows of a float32 tensor (..., n) as a factor (`room` for the rows, n): `rounded`, with zeros behind them."""
    if not _rounding:
        return x.reshape(-1, x.shape[-1])
    number = x.shape[:-1].numel()
    rows = x.new_empty(room(number), x.shape[-1], dtype=torch.bfloat16)
    rows[:number].view(x.shape).copy_(x)
    rows[number:].zero_()
    return rows


def room(number: int) -> int:
    """The number of rows that a bf16 product takes for at least so many: one of 16 in each octave.

    oneDNN compiles a program for each shape, which takes longer than a product, and keeps 1,024 of them. Batches of all
    lengths need more (docs/PERFORMANCE.md, "bf16 on a CPU").
    """
    step = 1 << max(0, number.bit_length() - 5)
    return -(-number // step) * step


def of_rows(product: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The product of `rows_of` a tensor of this shape (..., n) with a matrix, in float32: (..., what the matrix makes)."""
    number = shape[:-1].numel()
    # The same tensor, but no view of another one: Longformer changes a layer's result in place.
    return torch.ops.aten._unsafe_view(product[:number].float(), (*shape[:-1], product.shape[-1]))


def multiplied(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: torch.Size
) -> torch.Tensor:
    """x weight' + bias in float32, outside of autograd. rows: `rows_of` x; weight: `rounded`; bias: float32; shape: x's."""
    return of_rows(linear(rows, weight, None if bias is None else bias.to(rows.dtype)), shape)


class _Product(torch.autograd.Function):
    """x W' + b with rounded factors; backward too."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        rows, weight = rows_of(x), rounded(weight)
        x_needed, weight_needed, _ = ctx.needs_input_grad
        ctx.save_for_backward(rows if weight_needed else None, weight if x_needed else None)
        return multiplied(rows, weight, bias, x.shape)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_rows, weight = ctx.saved_tensors
        rows = rows_of(grad)
        x_grad = None if weight is None else of_rows(rows @ weight, grad.shape)
        weight_grad = None if x_rows is None else (rows.T @ x_rows).float()
        bias_grad = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return x_grad, weight_grad, bias_grad


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x weight' + bias, rounded or not, for autograd. x: (..., in); weight: (out, in); all float32."""
    return _Product.apply(x, weight, bias) if _rounding else linear(x, weight, bias)
