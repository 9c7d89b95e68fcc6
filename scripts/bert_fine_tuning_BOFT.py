"""BOFT: trained rotations of the inputs of frozen layers, each the product of sparse ones, a butterfly (Liu et al., 2024)."""

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
class BOFT(Technique):
    name = "BOFT"
    key = "boft"
    rates = by_halves(3e-3, MEASURED)

    block_size: int = option(
        4, "inputs in each rotated block; it must divide every layer's inputs", minimum=2, maximum=65536
    )
    butterfly_factors: int = option(
        2, "rotations that are multiplied; with each, twice as many inputs are mixed", minimum=1, maximum=16
    )
    dropout: float = option(0.0, "share of the blocks that are left out in training", minimum=0, below=1)

    def method(self, family: Family) -> "PeftConfig":
        from peft import BOFTConfig

        return BOFTConfig(
            boft_block_size=self.block_size,
            boft_n_butterfly_factor=self.butterfly_factors,
            boft_dropout=self.dropout,
            target_modules=family.linear_layers,
        )


if __name__ == "__main__":
    main(BOFT)
