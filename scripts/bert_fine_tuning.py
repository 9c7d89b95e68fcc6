"""Standard fine-tuning: every weight of the model is trained (Devlin et al., 2019)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass

from common.training.command_line import main
from common.training.rates import MEASURED, Rate, Rates
from common.training.settings import Technique, option


@dataclass(frozen=True)
class Standard(Technique):
    name = "Standard"
    key = "standard"
    rates = Rates(
        small=Rate(1e-4, MEASURED),
        base=Rate(3e-5, "Devlin et al., 2019, appendix A.3"),
        large=Rate(1.5e-5, "Liu et al., 2019 (RoBERTa), SQuAD"),
    )

    weight_decay: float = option(
        0.01, "weight decay (AdamW's is decoupled); biases and layer norms are left out"
    )


if __name__ == "__main__":
    main(Standard)
