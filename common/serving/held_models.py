"""The further models of a server that are in memory: how much they take, and which one goes when another needs the room."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..models.onnx import ONNX

DEPTH = 4
"""From MLflow's model to a network, at most: of one technique of several that answer side by side."""


@dataclass(frozen=True)
class Version:
    """What an alias names."""

    version: str
    model_id: str


@dataclass(frozen=True)
class Opened:
    """A version in memory. weights: address → bytes, as `weights_of` gives them."""

    model: Any
    named: Version
    weights: Mapping[int, int]


@dataclass
class Held:
    """The models in memory, by name, the one that was not asked for longest first.

    most: bytes of weights at most; None: any number. beside: gives the weights that are always there.
    """

    most: int | None
    beside: Callable[[], Mapping[int, int]] = dict
    models: dict[str, Opened] = field(default_factory=dict)

    def asked(self, name: str) -> Opened | None:
        """The model of a request, if it is there."""
        found = self.models.pop(name, None)
        if found is not None:
            self.models[name] = found
        return found

    def total(self, models: Iterable[Opened] | None = None) -> int:
        """Bytes of all weights with these models in memory, by default those that are; what they share counts once."""
        every = dict(self.beside())
        for each in self.models.values() if models is None else models:
            every |= each.weights
        return sum(every.values())

    def own(self) -> dict[str, int]:
        """Name → bytes of the weights that no other model uses."""
        users = Counter(place for each in self.models.values() for place in each.weights)
        users.update(self.beside().keys())
        return {
            name: sum(size for place, size in each.weights.items() if users[place] == 1)
            for name, each in self.models.items()
        }

    def put(self, name: str, opened: Opened) -> dict[str, Opened] | None:
        """Keep a model, in the place of another version of it; gives what had to go for it, by name. None: it does not fit."""
        if self.most is not None and self.total([opened]) > self.most:
            return None
        gone = {name: self.models[name]} if name in self.models else {}
        # A new version keeps the place of the one before: a promotion is no request.
        self.models[name] = opened
        return gone | self.trimmed(name)

    def trimmed(self, kept: str | None = None) -> dict[str, Opened]:
        """Let go what is too much, because a model came or the one that is always there grew: what went, by name."""
        gone = {}
        for other in [each for each in self.models if each != kept]:
            if self.most is None or self.total() <= self.most:
                break
            gone[other] = self.models.pop(other)
        return gone


def weights_of(model: Any) -> dict[int, int]:
    """Address → bytes of the parameters and buffers of a model that MLflow loaded. Where it has none, because ONNX Runtime
    holds them, the bytes of its files."""
    holder = model.unwrap_python_model()
    found = weights_in(holder)
    if not any(found.values()):
        bundle = Path(model._model_impl.context.artifacts["bundle"])
        # Each session has the network for itself.
        copies = max(len(getattr(each, "sessions", "1")) for each in _networks(holder, DEPTH, set()))
        found[-id(model)] = sum(
            file.stat().st_size * (copies if file.name == ONNX else 1)
            for file in bundle.rglob("*")
            if file.is_file()
        )
    return found


def weights_in(holder: Any) -> dict[int, int]:
    """Address → bytes of the parameters and buffers of the networks that an object holds, itself or in what it holds."""
    return {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for module in _networks(holder, DEPTH, set())
        for tensor in (*module.parameters(), *module.buffers())
    }


def _networks(holder: Any, depth: int, met: set[int]) -> list[torch.nn.Module]:
    if id(holder) in met or depth < 0:
        return []
    met.add(id(holder))
    if isinstance(holder, torch.nn.Module):
        return [holder]
    inner: Iterable[Any] = ()
    if isinstance(holder, Mapping):
        inner = holder.values()
    elif isinstance(holder, list | tuple):
        inner = holder
    elif hasattr(holder, "__dict__"):
        inner = vars(holder).values()
    return [network for each in list(inner) for network in _networks(each, depth - 1, met)]
