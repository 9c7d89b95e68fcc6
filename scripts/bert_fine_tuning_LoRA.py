"""LoRA: trainable low-rank updates beside frozen weights (Hu et al., 2021)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from common.models.families import Family
from common.training.command_line import main
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class LoRA(Technique):
    name = "LoRA"
    key = "lora"

    r: int = option(16, "rank of each update", minimum=1, maximum=65536)
    alpha: int = option(32, "the update is scaled by alpha / r", minimum=1, maximum=65536)
    dropout: float = option(0.0, "dropout before the update", minimum=0, below=1)
    targets: Literal["all", "attention", "attention+projection"] = option(
        "all",
        "layers to update: all (every linear layer), attention (query, key, value), or attention+projection (also its output)",
    )
    learning_rate: float = option(1e-3, "peak learning rate; about ten times full fine-tuning's")

    def method(self, family: Family) -> "PeftConfig":
        from peft import LoraConfig

        attention = (family.query, family.key, family.value)
        targets = {
            "all": family.linear_layers,
            "attention": family.matching(*attention),
            "attention+projection": family.matching(*attention, family.attention_output),
        }
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets[self.targets],
        )


if __name__ == "__main__":
    main(LoRA)
