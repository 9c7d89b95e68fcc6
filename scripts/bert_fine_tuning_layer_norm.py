"""Layer-norm tuning: only the normalisation layers are trained (Zhao et al., 2024)."""

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
class LayerNorm(Technique):
    name = "Layer norm"
    key = "layer-norm"
    rates = Rates(
        small=Rate(5e-3, MEASURED),
        base=Rate(4e-4, "none is published for encoders: BitFit's"),
        large=Rate(1e-4, "none is published for encoders: BitFit's"),
    )

    def method(self, family: Family) -> "Method":
        from common.models.methods import PartOfWeights

        return PartOfWeights("norms")


if __name__ == "__main__":
    main(LayerNorm)
