"""Bottleneck adapters: small trained networks between frozen layers (Houlsby et al., 2019; Pfeiffer et al., 2021)."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from common.models.families import Family
from common.training.command_line import main
from common.training.rates import MEASURED, Rate, Rates
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from common.models.methods import Method


@dataclass(frozen=True)
class Bottleneck(Technique):
    name = "Bottleneck"
    key = "bottleneck"
    rates = Rates(
        small=Rate(3e-3, MEASURED),
        base=Rate(3e-4, "Houlsby et al., 2019"),
        large=Rate(3e-4, "Houlsby et al., 2019"),
    )

    size: int = option(64, "width of each adapter", minimum=1, maximum=65536)
    placement: Literal["houlsby", "pfeiffer"] = option(
        "houlsby",
        "houlsby: after the attention and after the feed-forward layer of each block; pfeiffer: after the latter only",
    )
    layer_norms: bool = option(True, "train the normalisation layers too, as Houlsby et al. do")

    def method(self, family: Family) -> "Method":
        from common.models.methods import BottleneckAdapters

        return BottleneckAdapters(self.size, self.placement, self.layer_norms)


if __name__ == "__main__":
    main(Bottleneck)
