"""FourierFT: updates whose Fourier transforms have a few trained entries at random places (Gao et al., 2024)."""

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
class FourierFT(Technique):
    name = "FourierFT"
    key = "fourierft"
    rates = by_halves(1e-1, MEASURED)

    n_frequency: int = option(1000, "trained entries for each layer", minimum=1, maximum=10**9)
    scaling: float = option(150.0, "the update is scaled by this", above=0, maximum=LARGE)
    location_seed: int = option(
        777, "decides the places of the entries; the saved adapter names it", minimum=0, maximum=SEEDS
    )

    def method(self, family: Family) -> "PeftConfig":
        from peft import FourierFTConfig

        return FourierFTConfig(
            n_frequency=self.n_frequency,
            scaling=self.scaling,
            # From the model as it is; PEFT's random start changes small layers too much.
            init_weights=True,
            random_loc_seed=self.location_seed,
            target_modules=family.linear_layers,
        )


if __name__ == "__main__":
    main(FourierFT)
