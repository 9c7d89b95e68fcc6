"""LoRA: trainable low-rank updates beside frozen weights (Hu et al., 2021); also DoRA, rsLoRA, PiSSA, OLoRA and EVA."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from common.errors import UserError
from common.models.families import Family
from common.training.command_line import main
from common.training.rates import MEASURED, Rate, Rates
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class LoRA(Technique):
    name = "LoRA"
    key = "lora"
    rates = Rates(
        small=Rate(1e-3, MEASURED),
        base=Rate(5e-4, "Hu et al., 2021, table 9, RoBERTa-base"),
        large=Rate(4e-4, "Hu et al., 2021, table 9, RoBERTa-large"),
    )

    r: int = option(16, "rank of each update", minimum=1, maximum=65536)
    alpha: int = option(32, "the update is scaled by alpha / r", minimum=1, maximum=65536)
    dropout: float = option(0.0, "dropout before the update", minimum=0, below=1)
    targets: Literal["all", "attention", "attention+projection"] = option(
        "all",
        "layers to update: all (every linear layer), attention (query, key, value), or attention+projection (also its output)",
    )
    init: Literal["kaiming", "gaussian", "pissa", "pissa_niter_16", "olora", "eva"] = option(
        "kaiming",
        "where updates start: kaiming or gaussian, a random A and a zero B; pissa, the largest singular values of the weights "
        "(pissa_niter_16: approximated, faster); olora, the weights' QR; eva, where the activations of training windows vary most",
    )
    dora: bool = option(False, "train the length of each row of a weight beside its direction (DoRA)")
    rslora: bool = option(False, "scale the update by alpha / sqrt(r) (rsLoRA)")
    bias: Literal["none", "all", "lora_only"] = option(
        "none", "biases to train too: none, all, or lora_only (those of the updated layers)"
    )
    lora_plus_ratio: float = option(
        1.0,
        "LoRA+ (Hayou et al., 2024): the second factors, B, get the learning rate times this; 16 is usual",
        above=0,
        maximum=1e6,
    )

    def rate_factor(self, parameter: str) -> float:
        return self.lora_plus_ratio if "lora_B" in parameter else 1.0

    def method(self, family: Family) -> "PeftConfig":
        from peft import EvaConfig, LoraConfig

        attention = (family.query, family.key, family.value)
        targets = {
            "all": family.linear_layers,
            "attention": family.matching(*attention),
            "attention+projection": family.matching(*attention, family.attention_output),
        }
        if self.init == "olora" and family.conv1d:
            raise UserError(
                f"--init olora does not work with {family.model_type}: PEFT's OLoRA takes the weights of its Conv1D layers for "
                "their transposes; use --init pissa."
            )
        if self.bias != "none":
            family.check_biases(f"--bias {self.bias}")
        further: dict[str, Any] = {"init_lora_weights": True if self.init == "kaiming" else self.init}
        if self.init == "eva":
            # rsLoRA's scale follows from each layer's own rank.
            further["eva_config"] = EvaConfig(adjust_scaling_factors=not self.rslora)
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets[self.targets],
            use_dora=self.dora,
            use_rslora=self.rslora,
            bias=self.bias,
            **further,
        )


if __name__ == "__main__":
    main(LoRA)
