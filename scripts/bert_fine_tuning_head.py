"""The head alone: every weight of the model stays frozen; the baseline of all techniques (Devlin et al., 2019, section 5.3)."""

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
class Head(Technique):
    name = "Head alone"
    key = "head"
    rates = Rates(
        small=Rate(5e-3, MEASURED),
        base=Rate(1e-3, "none is published: Adam's own default (Kingma & Ba, 2015)"),
        large=Rate(1e-3, "none is published: Adam's own default (Kingma & Ba, 2015)"),
    )

    def method(self, family: Family) -> "Method":
        from common.models.methods import PartOfWeights

        return PartOfWeights("head")


if __name__ == "__main__":
    main(Head)
