"""Prefix tuning: trained keys and values in front of those of the input, in every attention layer (Li & Liang, 2021)."""

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
class PrefixTuning(Technique):
    name = "Prefix tuning"
    key = "prefix-tuning"
    rates = Rates(
        small=Rate(5e-2, MEASURED),
        base=Rate(5e-3, "P-tuning v2's run_squad_roberta.sh, RoBERTa-large"),
        large=Rate(5e-3, "P-tuning v2's run_squad_roberta.sh, RoBERTa-large"),
    )

    num_virtual_tokens: int = option(
        20, "length of the prefix; it does not shorten the input", minimum=1, maximum=65536
    )
    projection: bool = option(
        False, "train the prefix through a two-layer network, as the paper does for stability"
    )
    projection_size: int | None = option(
        None, "width of that network; default: the model's", minimum=1, maximum=65536
    )

    def method(self, family: Family) -> "PeftConfig":
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(
            num_virtual_tokens=self.num_virtual_tokens,
            prefix_projection=self.projection,
            encoder_hidden_size=self.projection_size,
        )


if __name__ == "__main__":
    main(PrefixTuning)
