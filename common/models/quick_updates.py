"""LoHa, LoKr, FourierFT and BOFT on a CPU: the weight is updated, and the input is multiplied once.

PEFT's own layers multiply the input by the weight and by its update (LoHa, LoKr, FourierFT), or rotate it by dense
matrices that are nearly all zeros (BOFT).
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from peft.tuners import boft, fourierft, loha, lokr
from torch import nn
from torch.autograd.function import FunctionCtx

from .cpu_adapters import Holding, only_adapter
from .products import multiplied, product, rounded, rows_of


class _Quick(Holding, ABC):
    """A linear layer whose forward pass uses an updated weight, in the common case."""

    base_layer: nn.Linear

    def usual(self, name: str) -> bool:
        """Whether an adapter is in the common case."""
        return True

    @abstractmethod
    def updated(self, name: str) -> torch.Tensor:
        """The weight with an adapter's update."""

    @abstractmethod
    def adapters(self) -> set[str]:
        """The adapters of this layer."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        name = only_adapter(self, self.adapters(), x)
        if name is None or args or kwargs or not self.usual(name):
            # PEFT's.
            peft: torch.Tensor = super().forward(x, *args, **kwargs)
            return peft
        if self.held is None:
            return product(x, self.updated(name), self.base_layer.bias)
        if name not in self.held:
            self.held[name] = rounded(self.updated(name))
        return multiplied(rows_of(x), self.held[name], self.base_layer.bias, x.shape)


class _Product(_Quick):
    """A linear layer whose update is an element-wise (LoHa) or a Kronecker product (LoKr)."""

    def usual(self, name: str) -> bool:
        return not (self.training and self.module_dropout[name])

    def adapters(self) -> set[str]:
        return set(self.r)

    def updated(self, name: str) -> torch.Tensor:
        dropped = self.training and bool(self.rank_dropout[name])
        update: torch.Tensor = self.get_delta_weight(name, apply_rank_dropout=dropped)
        return self.base_layer.weight + update


class LohaLinear(_Product, loha.layer.Linear):
    """PEFT's linear layer with LoHa."""


class LokrLinear(_Product, lokr.layer.Linear):
    """PEFT's linear layer with LoKr."""


class FourierLinear(_Quick, fourierft.layer.FourierFTLinear):
    """PEFT's linear layer with FourierFT."""

    def adapters(self) -> set[str]:
        return set(self.fourierft_spectrum)

    def updated(self, name: str) -> torch.Tensor:
        update: torch.Tensor = self.get_delta_weight(name)
        return self.base_layer.weight + update


class _Permuted(torch.autograd.Function):
    """The columns of a matrix in another order; torch's own gradient of that adds them up one by one."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, order: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.back = back
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grad.index_select(1, ctx.back), None, None


class BoftLinear(_Quick, boft.layer.Linear):
    """PEFT's linear layer with BOFT."""

    orders: list[tuple[torch.Tensor, torch.Tensor] | None] | None = None
    """The permutation of each factor and its inverse, read once from its dense matrix; None where it changes nothing."""

    def adapters(self) -> set[str]:
        return set(self.boft_R)

    def updated(self, name: str) -> torch.Tensor:
        """s W R', R = B_m ... B_1, where a factor B turns blocks of permuted inputs."""
        if self.orders is None:
            found = self.boft_P.argmax(dim=-1)
            same = torch.arange(found.shape[1])
            self.orders = [None if order.equal(same) else (order, order.argsort()) for order in found]
        blocks = self.boft_R[name]
        count, number, size, _ = blocks.shape
        turned = self.cayley_batch(blocks.flatten(0, 1)).view(count, number, size, size)
        turned = self.boft_dropout[name](turned)
        weight = self.base_layer.weight
        for order, factor in zip(self.orders, turned, strict=True):
            if order is not None:
                weight = _Permuted.apply(weight, order[1], order[0])
            weight = torch.einsum("rnk,njk->rnj", weight.view(-1, number, size), factor).flatten(1)
            if order is not None:
                weight = _Permuted.apply(weight, *order)
        return self.boft_s[name] * weight


CLASSES: dict[type[nn.Module], type[_Quick]] = {
    loha.layer.Linear: LohaLinear,
    lokr.layer.Linear: LokrLinear,
    fourierft.layer.FourierFTLinear: FourierLinear,
    boft.layer.Linear: BoftLinear,
}
