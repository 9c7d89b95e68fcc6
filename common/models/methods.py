"""Techniques that PEFT lacks: a part of the model's own weights, and bottleneck adapters.

A method is put on a model in place; the model's own parameters keep their names. What it trained is saved as PEFT saves an
adapter, one JSON file beside one safetensors file, and PEFT refuses to load it.
"""

import json
import re
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import UserError
from .families import Family

FIELD = "method"
"""Field of an adapter's config that holds the method's kind."""
REFUSED = "{} of this suite (load it with the code of its stored model): PEFT has no such technique"
"""In the place of PEFT's type, so that the error that PEFT raises shows it."""


@dataclass(frozen=True)
class Method(ABC):
    """How a technique changes a model; its fields decide it, as those of a PEFT config do."""

    kind: ClassVar[str]
    """As saved configs name it."""
    merges: ClassVar[bool]
    """Whether a model with it is a plain model of its class, which transformers saves and loads."""

    @abstractmethod
    def put_on(self, model: nn.Module, family: Family) -> None:
        """Add to a frozen model what is trained, in place, and make it trainable. UserError where there is nothing to train."""


@dataclass(frozen=True)
class PartOfWeights(Method):
    """Some of the model's own weights are trained; the others are frozen.

    biases: BitFit (Ben Zaken et al., 2022, https://arxiv.org/abs/2106.10199). norms: weights and biases of all
    normalisation layers. layers: the last blocks of the model, or of its decoder. head: only the head, which every
    technique trains.
    """

    kind = "part of the weights"
    merges = True

    part: Literal["biases", "norms", "layers", "head"]
    layers: int = 0
    """How many blocks are trained, counted from the last one."""

    def put_on(self, model: nn.Module, family: Family) -> None:
        chosen: list[nn.Parameter] = []
        if self.part == "biases":
            chosen = [p for name, p in model.named_parameters() if name.endswith(".bias")]
        elif self.part == "norms":
            chosen = [p for norm in norms(model) for p in norm.parameters()]
        elif self.part == "layers":
            found = blocks(model, family)
            if self.layers > len(found):
                raise UserError(
                    f"--layers is {self.layers}, and this model has {len(found)} blocks: use that or less."
                )
            chosen = [p for block in found[len(found) - self.layers :] for p in block.parameters()]
        if not chosen and self.part != "head":
            raise UserError(f"This {family.model_type} model has no {self.part}: choose another technique.")
        for parameter in chosen:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class BottleneckAdapters(Method):
    """A small network after frozen layers: x + up(gelu(down(x))); `down` has `size` outputs.

    houlsby: after the attention's output layer and after the feed-forward layer of each block (Houlsby et al., 2019,
    https://arxiv.org/abs/1902.00751). pfeiffer: after the feed-forward layer only (Pfeiffer et al., 2021,
    https://arxiv.org/abs/2005.00247). `up` starts at zero, so that training starts from the model as it was.
    """

    kind = "bottleneck adapters"
    merges = False

    size: int
    placement: Literal["houlsby", "pfeiffer"]
    layer_norms: bool
    """Whether the normalisation layers are trained too."""

    def put_on(self, model: nn.Module, family: Family) -> None:
        roles = [family.attention_output] * (self.placement == "houlsby") + [family.down]
        pattern = re.compile(family.matching(*roles))
        for name, layer in list(model.named_modules()):
            if pattern.fullmatch(name):
                layer.register_module("bottleneck", Bottleneck(_width(layer), self.size))
                layer.register_forward_hook(_through_bottleneck)
        if self.layer_norms:
            for norm in norms(model):
                norm.requires_grad_(True)


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))); x: (..., width)."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        nn.init.normal_(self.down.weight, std=0.02)
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(nn.functional.gelu(self.down(x)))


def _through_bottleneck(layer: nn.Module, _: Any, out: torch.Tensor) -> torch.Tensor:
    return layer.bottleneck(out)


def _width(layer: nn.Module) -> int:
    return layer.nf if isinstance(layer, Conv1D) else layer.out_features


def norms(model: nn.Module) -> list[nn.Module]:
    """The normalisation layers; T5's and others are classes of their own."""
    return [m for m in model.modules() if type(m).__name__.endswith(("LayerNorm", "RMSNorm"))]


def stacks(model: nn.Module, family: Family) -> list[list[nn.Module]]:
    """The blocks of a model, each with one attention layer or more; those of an encoder before those of its decoder."""

    def attends(module: nn.Module) -> bool:
        return any(type(m).__name__.endswith(family.self_attention) for m in module.modules())

    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) and all(map(attends, m))]
    inner = {id(m) for outer in lists for block in outer for m in block.modules()}
    return [list(m) for m in lists if id(m) not in inner]


def blocks(model: nn.Module, family: Family) -> list[nn.Module]:
    """The blocks of a model; a decoder's where there is one."""
    return stacks(model, family)[-1]


METHODS: dict[str, type[Method]] = {kind.kind: kind for kind in (PartOfWeights, BottleneckAdapters)}


def apply(method: Method, model: nn.Module, family: Family, head: str) -> None:
    """Freeze a model, put a method on it and make its head trainable."""
    model.requires_grad_(False)
    method.put_on(model, family)
    for name in family.heads[head]:
        model.get_submodule(name).requires_grad_(True)


def described(method: Method) -> dict[str, Any]:
    """A method's kind and fields, as JSON can hold them."""
    return {FIELD: method.kind} | asdict(method)


def save(method: Method, model: nn.Module, folder: Path) -> None:
    """Write what a method trained on a model into a new folder."""
    folder.mkdir(parents=True)
    trained = {n: p.detach().clone().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    save_file(trained, folder / SAFETENSORS_WEIGHTS_NAME)
    config = {"peft_type": REFUSED.format(method.kind)} | described(method)
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def read(adapter: Path) -> Method:
    """The method of a saved adapter."""
    content = json.loads((adapter / CONFIG_NAME).read_text())
    del content["peft_type"]
    return METHODS[content.pop(FIELD)](**content)


def opened(model: nn.Module, adapter: Path, family: Family, head: str) -> nn.Module:
    """A base with what was trained and saved, for inference.

    Parameters are replaced, not written to: other adapters may share those of the base.
    """
    read(adapter).put_on(model, family)
    # Before anything is replaced: what is shared would go on asking for gradients in the other models.
    model.requires_grad_(False)
    for name, tensor in load_file(adapter / SAFETENSORS_WEIGHTS_NAME).items():
        module, _, parameter = name.rpartition(".")
        setattr(model.get_submodule(module), parameter, nn.Parameter(tensor, requires_grad=False))
    return model
