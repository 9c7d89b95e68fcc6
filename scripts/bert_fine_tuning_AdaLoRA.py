"""AdaLoRA: low-rank updates whose ranks are taken from where they matter least (Zhang et al., 2023)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import UserError
from common.models.families import Family
from common.training.command_line import main
from common.training.rates import MEASURED, Rate, Rates
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class AdaLoRA(Technique):
    name = "AdaLoRA"
    key = "adalora"
    rates = Rates(
        small=Rate(1e-2, MEASURED),
        base=Rate(1e-3, "Zhang et al., 2023, SQuAD with DeBERTa-v3-base"),
        large=Rate(5e-4, "none is published for a large encoder: half of that for a base one"),
    )

    initial_r: int = option(24, "rank of each update at the beginning", minimum=2, maximum=65536)
    r: int = option(16, "mean rank of the updates at the end", minimum=1, maximum=65536)
    alpha: int = option(32, "the update is scaled by alpha / initial_r", minimum=1, maximum=65536)
    dropout: float = option(0.0, "dropout before the update", minimum=0, below=1)
    initial_share: float = option(0.1, "share of the steps before ranks are taken away", minimum=0, below=1)
    final_share: float = option(
        0.4, "share of the steps after the last rank is taken away", minimum=0, below=1
    )
    interval: int = option(10, "steps between two allocations of the ranks", minimum=1, maximum=10**6)
    orthogonality: float = option(
        0.1, "weight in the loss of how far the factors are from orthogonal", minimum=0, maximum=10**6
    )

    def method(self, family: Family) -> "PeftConfig":
        from peft import AdaLoraConfig

        from common.models.adalora import STEPS

        if self.r >= self.initial_r:
            raise UserError(
                f"--r {self.r} leaves AdaLoRA nothing to take away from --initial_r {self.initial_r}: use a smaller --r."
            )
        if self.initial_share + self.final_share > 0.95:
            raise UserError(
                f"--initial_share {self.initial_share} and --final_share {self.final_share} leave AdaLoRA no steps to take ranks "
                "away in: their sum must be 0.95 or less."
            )
        return AdaLoraConfig(
            init_r=self.initial_r,
            target_r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            total_step=STEPS,
            tinit=round(self.initial_share * STEPS),
            tfinal=round(self.final_share * STEPS),
            deltaT=self.interval,
            orth_reg_weight=self.orthogonality,
            target_modules=family.linear_layers,
        )


if __name__ == "__main__":
    main(AdaLoRA)
