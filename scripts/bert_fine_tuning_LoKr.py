"""LoKr: updates that are the Kronecker product of a small matrix and a low-rank one (Yeh et al., 2023)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.models.families import Family
from common.training.command_line import main
from common.training.rates import MEASURED, by_halves
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class LoKr(Technique):
    name = "LoKr"
    key = "lokr"
    rates = by_halves(3e-3, MEASURED)

    r: int = option(8, "rank of the product's second factor", minimum=1, maximum=65536)
    alpha: int = option(16, "the update is scaled by alpha / r", minimum=1, maximum=65536)
    decompose_factor: int = option(
        -1,
        "size of the product's first factor; -1: the divisor of the layer's size that is closest to its square root",
        minimum=-1,
        maximum=65536,
    )
    dropout: float = option(
        0.0, "rank dropout: share of the update's rows that are left out in training", minimum=0, below=1
    )

    def method(self, family: Family) -> "PeftConfig":
        from peft import LoKrConfig

        return LoKrConfig(
            r=self.r,
            alpha=self.alpha,
            decompose_factor=self.decompose_factor,
            rank_dropout=self.dropout,
            target_modules=family.linear_layers,
        )


if __name__ == "__main__":
    main(LoKr)
