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
    # Attention's products stay in torch's hands. It rounds their factors only on processors with AMX.
    torch.set_float32_matmul_precision("medium" if on else "highest")


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


def multiplied(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x weight' + bias in float32, outside of autograd. x, weight: `rounded`; bias: float32."""
    return linear(x, weight, None if bias is None else bias.to(x.dtype)).float()


class _Product(torch.autograd.Function):
    """x W' + b with rounded factors; backward too."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        x, weight = rounded(x), rounded(weight)
        x_needed, weight_needed, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if weight_needed else None, weight if x_needed else None)
        return multiplied(x, weight, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        x_grad = None if weight is None else (rounded(grad) @ weight).float()
        weight_grad = None if x is None else (rounded(rows).T @ x.reshape(-1, x.shape[-1])).float()
        return x_grad, weight_grad, rows.sum(0) if ctx.needs_input_grad[2] else None


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x weight' + bias, rounded or not, for autograd. x: (..., in); weight: (out, in); all float32."""
    return _Product.apply(x, weight, bias) if _rounding else linear(x, weight, bias)
