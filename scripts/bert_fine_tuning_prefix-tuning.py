"""Prefix tuning: trained keys and values in front of those of the input, in every attention layer (Li & Liang, 2021).

With --gating, gates that start at zero (Zhang et al., 2023) let training start from the model as it was.
"""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.bounds import LARGE
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
    gating: bool = option(
        False,
        "attend to the prefix by a softmax of its own, times a trained gate for each layer and head that starts at zero",
    )
    prefix_dropout: float = option(
        0.0, "share of the prefix's values that a step leaves out", minimum=0, below=1
    )
    prefix_scale: float = option(
        1.0, "how many times faster than the head and the gates the prefix moves", above=0, maximum=LARGE
    )

    def method(self, family: Family) -> "PeftConfig":
        from common.models.virtual_tokens import PrefixConfig

        return PrefixConfig(
            num_virtual_tokens=self.num_virtual_tokens,
            prefix_projection=self.projection,
            encoder_hidden_size=self.projection_size,
            gating=self.gating,
            prefix_dropout=self.prefix_dropout,
            prefix_scale=self.prefix_scale,
        )


if __name__ == "__main__":
    main(PrefixTuning)
