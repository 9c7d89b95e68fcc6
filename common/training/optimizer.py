"""What the optimizer updates at which rate: groups of parameters that share learning rate and weight decay."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from ..models import parts
from ..models.families import Family
from .settings import RunArgs, Technique


@dataclass(frozen=True)
class ParameterGroups:
    """The groups of a run's model: of a technique, in a family, with a head."""

    technique: Technique
    args: RunArgs
    family: Family
    head: str

    @property
    def rate(self) -> float:
        """The technique's learning rate, which is settled when a run is planned."""
        assert self.technique.learning_rate is not None
        return self.technique.learning_rate

    def of(self, model: torch.nn.Module, decayed: Collection[str]) -> list[dict[str, Any]]:
        """The trained parameters of a model as torch's optimizers take them. decayed: names of those with weight decay.

        The groups of the technique's own rate come first, so that theirs is the rate that is logged. Where every parameter
        has it, they are the two that transformers makes.
        """
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        rates = self._rates(model, [name for name, _ in trained])
        groups: list[dict[str, Any]] = []
        for rate in [self.rate, *sorted(set(rates.values()) - {self.rate}, reverse=True)]:
            for decay in (True, False):
                chosen = [p for name, p in trained if rates[name] == rate and (name in decayed) == decay]
                if chosen or rate == self.rate:
                    own = {} if rate == self.rate else {"lr": rate}
                    weight_decay = self.technique.weight_decay if decay else 0.0
                    groups.append({"params": chosen, "weight_decay": weight_decay} | own)
        return groups

    def _rates(self, model: torch.nn.Module, names: list[str]) -> dict[str, float]:
        """Parameter → its peak learning rate."""
        args = self.args
        # Only then are the model's blocks asked for: a technique may hide them.
        depths = parts.depths(model, self.family) if args.layer_decay < 1 else {}
        rates = {}
        for name in names:
            rates[name] = (
                self.rate * self.technique.rate_factor(name) * args.layer_decay ** depths.get(name, 0)
            )
            if args.head_learning_rate and parts.of_head(name, self.family, self.head):
                rates[name] = args.head_learning_rate
        return rates
