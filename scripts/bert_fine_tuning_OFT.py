"""OFT: trained rotations of the inputs of frozen layers, in blocks (Qiu et al., 2023)."""

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
class OFT(Technique):
    name = "OFT"
    key = "oft"
    rates = by_halves(1e-3, MEASURED)

    block_size: int = option(
        32,
        "inputs in each rotated block; where it does not divide a layer's inputs, the divisor next to it",
        minimum=2,
        maximum=65536,
    )
    dropout: float = option(0.0, "share of the blocks that are left out in training", minimum=0, below=1)

    def method(self, family: Family) -> "PeftConfig":
        from peft import OFTConfig

        return OFTConfig(
            oft_block_size=self.block_size, module_dropout=self.dropout, target_modules=family.linear_layers
        )


if __name__ == "__main__":
    main(OFT)
