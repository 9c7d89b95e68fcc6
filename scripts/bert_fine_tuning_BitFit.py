"""BitFit: only the biases are trained (Ben Zaken et al., 2022)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.models.families import Family
from common.training.command_line import main
from common.training.rates import MEASURED, Rate, Rates
from common.training.settings import Technique

if TYPE_CHECKING:
    from common.models.methods import Method


@dataclass(frozen=True)
class BitFit(Technique):
    name = "BitFit"
    key = "bitfit"
    rates = Rates(
        small=Rate(2e-3, MEASURED),
        base=Rate(4e-4, "Ben Zaken et al., 2022: 1e-4 to 4e-4"),
        large=Rate(1e-4, "Ben Zaken et al., 2022: 1e-4 to 4e-4"),
    )

    def method(self, family: Family) -> "Method":
        from common.models.methods import PartOfWeights

        return PartOfWeights("biases")


if __name__ == "__main__":
    main(BitFit)
