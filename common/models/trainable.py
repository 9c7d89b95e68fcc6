"""What is trained of a model: its state, saved and loaded by checkpoints of a run, and its size."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..errors import UserError


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every trained parameter by name: a checkpoint must hold them all, the encoder of virtual tokens included."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def is_length(name: str) -> bool:
    """Whether a parameter with this name holds lengths of a weight's rows, as DoRA trains them."""
    return ".lora_magnitude_vector." in name


def save(model: torch.nn.Module, file: Path) -> None:
    """Write `state` as safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in state(model).items()}, file)


def load(model: torch.nn.Module, file: Path) -> None:
    """Load what `save` wrote into a model of the same technique and base."""
    saved, current = load_file(file), state(model)
    if saved.keys() != current.keys():
        raise UserError(
            f"{file} was written by another technique or model; remove its folder or choose another --output_dir."
        )
    with torch.no_grad():
        for name, tensor in current.items():
            tensor.copy_(saved[name])


def counts(model: torch.nn.Module) -> dict[str, int]:
    """`trainable_parameters` and `total_parameters`; the base counts once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {
        "trainable_parameters": sum(n for n, trained in sizes if trained),
        "total_parameters": sum(n for n, _ in sizes),
    }
