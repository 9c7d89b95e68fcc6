"""Standard fine-tuning: every weight of the model is trained (Devlin et al., 2019)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass

from common.training.command_line import main
from common.training.settings import Technique, option


@dataclass(frozen=True)
class Standard(Technique):
    name = "Standard"
    key = "standard"

    learning_rate: float = option(1e-4, "peak learning rate; 3e-5 is usual for a model of BERT-base's size")
    weight_decay: float = option(0.01, "AdamW's decoupled weight decay; biases and layer norms are left out")


if __name__ == "__main__":
    main(Standard)
