"""Prompt encoder (P-tuning): trained virtual tokens in front of the embedded input (Liu et al., 2021).

On frozen encoders this hardly answers questions; prefix tuning does (docs/TRAINING.md).
"""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from common.models.families import Family
from common.training.command_line import main
from common.training.rates import MEASURED, Rate, Rates
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class PromptEncoder(Technique):
    name = "Prompt encoder"
    key = "prompt-encoder"
    rates = Rates(
        small=Rate(5e-3, MEASURED),
        base=Rate(1e-3, "PEFT's guide to P-tuning, RoBERTa-large"),
        large=Rate(1e-3, "PEFT's guide to P-tuning, RoBERTa-large"),
    )

    num_virtual_tokens: int = option(20, "virtual tokens in front of the input", minimum=1, maximum=65536)
    encoder: Literal["MLP", "LSTM"] = option("MLP", "network through which the virtual tokens are trained")
    encoder_size: int | None = option(
        None, "width of that network; default: the embedding's", minimum=1, maximum=65536
    )

    def method(self, family: Family) -> "PeftConfig":
        from peft import PromptEncoderConfig

        return PromptEncoderConfig(
            num_virtual_tokens=self.num_virtual_tokens,
            encoder_reparameterization_type=self.encoder,
            encoder_hidden_size=self.encoder_size,
        )


if __name__ == "__main__":
    main(PromptEncoder)
