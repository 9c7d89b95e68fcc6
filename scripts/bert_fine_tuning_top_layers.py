"""Top layers: the last blocks of the model are trained in full, the others stay frozen (Howard & Ruder, 2018)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.models.families import Family
from common.training.command_line import main
from common.training.rates import MEASURED, Rate, Rates
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from common.models.methods import Method


@dataclass(frozen=True)
class TopLayers(Technique):
    name = "Top layers"
    key = "top-layers"
    rates = Rates(
        small=Rate(6e-4, MEASURED),
        base=Rate(5e-5, "Devlin et al., 2019, appendix A.3, the highest"),
        large=Rate(3e-5, "Devlin et al., 2019, appendix A.3"),
    )

    layers: int = option(2, "blocks to train, counted from the last one", minimum=1, maximum=10_000)
    weight_decay: float = option(
        0.01, "weight decay (AdamW's is decoupled); biases and layer norms are left out"
    )

    def method(self, family: Family) -> "Method":
        from common.models.methods import PartOfWeights

        return PartOfWeights("layers", self.layers)


if __name__ == "__main__":
    main(TopLayers)
