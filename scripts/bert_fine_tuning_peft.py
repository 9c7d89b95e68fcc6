"""Any method of PEFT by file: `peft_type` and its fields, as PEFT's adapter_config.json has them."""

import _path  # noqa: F401  # isort: skip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import UserError
from common.models import peft_methods
from common.models.families import Family
from common.training.command_line import main
from common.training.rates import by_halves
from common.training.settings import Technique, option

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class PeftMethod(Technique):
    name = "PEFT method"
    key = "peft"
    needs = "peft_config"
    rates = by_halves(1e-3, "LoRA's, measured on MiniLM-L6; each method has its own best one")

    peft_config: str = option(
        "",
        "YAML or JSON file with the method's peft_type and fields (docs/MODELS.md lists the types that work)",
    )

    def __post_init__(self) -> None:
        if self.peft_config:
            content = peft_methods.content_of(self.peft_config)
            # What the file holds decides a run, not where it lies.
            object.__setattr__(self, "peft_config", peft_methods.as_text(content))
            object.__setattr__(self, "name", peft_methods.name_of(content))

    @property
    def virtual_tokens(self) -> int:
        return peft_methods.virtual_tokens(self.content)

    @property
    def content(self) -> dict[str, object]:
        """What the file holds."""
        if not self.peft_config:
            raise UserError("--peft_config is missing: the file that names the peft_type and its fields.")
        return peft_methods.content_of(self.peft_config)

    def method(self, family: Family) -> "PeftConfig":
        return peft_methods.config_of(self.content, family)


if __name__ == "__main__":
    main(PeftMethod)
