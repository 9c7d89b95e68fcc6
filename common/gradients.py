"""How large the gradients of each layer are, for studies of what a technique trains."""

import math
import re
from collections.abc import Iterable

import torch

_LAYER = re.compile(r"(?:\b(encoder|decoder)\.)?\b(?:layers?|block|h)\.(\d+)\.")
_EMBEDDING = re.compile(r"embed|\bwte\b|\bwpe\b|\bshared\b|relative_attention_bias")


def layer_of(name: str) -> str:
    """The layer that a parameter of this name belongs to: "encoder layer 3", "layer 3" where a model has one stack and does
    not name it, "embeddings", or "other" (the head, virtual tokens)."""
    if found := _LAYER.search(name):
        stack = f"{found[1]} " if found[1] else ""
        return f"{stack}layer {found[2]}"
    return "embeddings" if _EMBEDDING.search(name) else "other"


def by_layer(
    parameters: Iterable[tuple[str, torch.nn.Parameter]], total: float, limit: float
) -> dict[str, float]:
    """Layer → norm of its gradients before they were clipped; layers without gradients are left out.

    parameters: names and parameters, clipped; total: the norm of all before that; limit: what it was clipped to.
    """
    squares: dict[str, float] = {}
    for name, parameter in parameters:
        if parameter.grad is not None:
            layer = layer_of(name)
            squares[layer] = squares.get(layer, 0.0) + float(parameter.grad.float().square().sum())
    scale = max(1.0, total / limit)
    return {layer: scale * math.sqrt(square) for layer, square in squares.items()}
