"""Prompt tuning: trained virtual tokens in front of the embedded input, without a network (Lester et al., 2021).

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
class PromptTuning(Technique):
    name = "Prompt tuning"
    key = "prompt-tuning"
    rates = Rates(
        small=Rate(1.5e-2, MEASURED),
        base=Rate(1.5e-2, "none is published for question answering by an encoder: the small models'"),
        large=Rate(1.5e-2, "none is published for question answering by an encoder: the small models'"),
    )

    num_virtual_tokens: int = option(20, "virtual tokens in front of the input", minimum=1, maximum=65536)
    init: Literal["vocabulary", "random"] = option(
        "vocabulary",
        "what the virtual tokens start as: embeddings of tokens drawn from the vocabulary, or random values of their size",
    )

    def method(self, family: Family) -> "PeftConfig":
        from peft import PromptTuningConfig

        init = {"vocabulary": "SAMPLE_VOCAB", "random": "RANDOM"}[self.init]
        return PromptTuningConfig(num_virtual_tokens=self.num_virtual_tokens, prompt_tuning_init=init)


if __name__ == "__main__":
    main(PromptTuning)
