"""The head alone: every weight of the model stays frozen; the baseline of all techniques (Devlin et al., 2019, section 5.3)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.models.families import Family
from common.training.command_line import main
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from common.models.methods import Method


@dataclass(frozen=True)
class Head(Technique):
    name = "Head alone"
    key = "head"

    learning_rate: float = option(5e-3, "peak learning rate")

    def method(self, family: Family) -> "Method":
        from common.models.methods import PartOfWeights

        return PartOfWeights("head")


if __name__ == "__main__":
    main(Head)
