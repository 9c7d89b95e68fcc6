"""VeRA: trained vectors that scale random low-rank matrices, which all layers share and none trains (Kopiczko et al., 2024)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.bounds import LARGE, SEEDS
from common.models.families import Family
from common.training.command_line import main
from common.training.rates import MEASURED, by_halves
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class VeRA(Technique):
    name = "VeRA"
    key = "vera"
    rates = by_halves(3e-2, MEASURED)

    r: int = option(256, "rank of the shared matrices", minimum=1, maximum=65536)
    dropout: float = option(0.0, "dropout before the update", minimum=0, below=1)
    d_initial: float = option(0.1, "value that the inner vectors start from", above=0, maximum=LARGE)
    projection_seed: int = option(
        0, "decides the shared matrices; the saved adapter holds them", minimum=0, maximum=SEEDS
    )

    def method(self, family: Family) -> "PeftConfig":
        from peft import VeraConfig

        return VeraConfig(
            r=self.r,
            vera_dropout=self.dropout,
            d_initial=self.d_initial,
            projection_prng_key=self.projection_seed,
            target_modules=family.linear_layers,
        )


if __name__ == "__main__":
    main(VeRA)
