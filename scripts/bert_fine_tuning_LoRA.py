"""LoRA: trainable low-rank updates beside frozen weights (Hu et al., 2021)."""

from dataclasses import dataclass

import _path  # noqa: F401

from common.cli import main
from common.config import Technique, option


@dataclass(frozen=True)
class LoRA(Technique):
    name = "LoRA"
    key = "lora"

    r: int = option(16, "rank of each update")
    alpha: int = option(32, "scale of the update is alpha / r")
    dropout: float = option(0.0, "dropout before the update")
    learning_rate: float = option(1e-3, "peak learning rate; about ten times full fine-tuning's")

    def peft_config(self, family):
        from peft import LoraConfig

        return LoraConfig(
            r=self.r, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=family.linear_layers
        )


if __name__ == "__main__":
    main(LoRA)
