"""IA3: trained vectors that scale keys, values and the feed-forward layer's inner activations (Liu et al., 2022)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.models.families import Family
from common.training.command_line import main
from common.training.rates import MEASURED, Rate, Rates
from common.training.settings import Technique

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class IA3(Technique):
    name = "IA3"
    key = "ia3"
    rates = Rates(
        small=Rate(2e-2, MEASURED),
        base=Rate(3e-3, "Liu et al., 2022 (T-Few)"),
        large=Rate(1e-3, "PEFT's example IA3.ipynb, RoBERTa-large"),
    )
    # No weight decay: it would pull the scales from 1, where they do not change the model, towards 0.

    def method(self, family: Family) -> "PeftConfig":
        from peft import IA3Config

        return IA3Config(
            target_modules=family.matching(family.key, family.value, family.down),
            feedforward_modules=family.matching(family.down),
        )


if __name__ == "__main__":
    main(IA3)
