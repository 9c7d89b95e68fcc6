"""LoHa: updates that are the element-wise product of two low-rank matrices (Hyeon-Woo et al., 2021)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.models.families import Family
from common.training.command_line import main
from common.training.rates import MEASURED, Rate, Rates
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class LoHa(Technique):
    name = "LoHa"
    key = "loha"
    rates = Rates(
        small=Rate(4e-3, MEASURED),
        base=Rate(2e-3, "none is published for encoders: LoRA's, raised as for MiniLM"),
        large=Rate(1.6e-3, "none is published for encoders: LoRA's, raised as for MiniLM"),
    )

    r: int = option(
        8, "rank of each of the two factors; their product reaches rank r * r", minimum=1, maximum=65536
    )
    alpha: int = option(16, "the update is scaled by alpha / r", minimum=1, maximum=65536)
    dropout: float = option(
        0.0, "rank dropout: share of the update's rows that are left out in training", minimum=0, below=1
    )

    def method(self, family: Family) -> "PeftConfig":
        from peft import LoHaConfig

        return LoHaConfig(
            r=self.r, alpha=self.alpha, rank_dropout=self.dropout, target_modules=family.linear_layers
        )


if __name__ == "__main__":
    main(LoHa)
