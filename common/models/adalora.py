"""AdaLoRA in training: its rank budget falls on schedule, its factors stay near orthogonal (Zhang et al., 2023,
https://arxiv.org/abs/2303.10512).

PEFT leaves both to the trainer: it adds the orthogonality to a loss that the model computes itself, and the budget falls only
where `update_and_allocate` is called.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from peft import AdaLoraConfig, AdaLoraModel, PeftModel
from peft.tuners.adalora import AdaLoraLayer

from ..errors import UserError
from .hooks import TrainingHook

ADAPTER = "default"
"""PEFT's name for a model's only adapter."""
STEPS = 1000
"""A config's schedule is in thousandths of the steps, until a run's number of steps is known."""


class Budget(TrainingHook):
    """Drives PEFT's rank allocator."""

    def __init__(self, model: AdaLoraModel):
        self.model = model
        self.schedule: AdaLoraConfig = replace(model.peft_config[ADAPTER])
        """As the technique gave it: its steps are shares of its own total."""
        layers = [layer for layer in model.model.modules() if isinstance(layer, AdaLoraLayer)]
        self.wide = [layer.lora_A[ADAPTER] for layer in layers]
        """(rank, in) each."""
        self.tall = [layer.lora_B[ADAPTER] for layer in layers]
        """(out, rank) each."""

    def begin(self, steps: int) -> None:
        config, whole = self.model.peft_config[ADAPTER], self.schedule.total_step
        assert whole is not None
        config.total_step = steps
        config.tinit = round(self.schedule.tinit / whole * steps)
        config.tfinal = round(self.schedule.tfinal / whole * steps)
        if steps - config.tfinal - config.tinit < 2:
            raise UserError(
                f"AdaLoRA cannot share out its ranks in {steps} optimizer steps, of which the first {config.tinit} and the last "
                f"{config.tfinal} leave them as they are: train for more epochs, or use a smaller --initial_share and --final_share "
                "(in a file: tinit and tfinal)."
            )

    def extra_loss(self) -> torch.Tensor:
        """orth_reg_weight x the mean over all factors of ||A A' - I|| or ||B' B - I||."""
        device = self.wide[0].device
        total = torch.zeros((), device=device)
        with torch.autocast(device.type, enabled=False):
            for tall in _stacked([*(a.mT for a in self.wide), *self.tall]):
                covariance = tall.mT @ tall
                eye = torch.eye(covariance.shape[-1], device=device)
                total = total + torch.linalg.matrix_norm(covariance - eye).sum()
        return self.model.peft_config[ADAPTER].orth_reg_weight / (len(self.wide) + len(self.tall)) * total

    def after_step(self, step: int, done: bool = True) -> None:
        config = self.model.peft_config[ADAPTER]
        assert config.total_step is not None
        # Until the last allocation the allocator reads the gradients.
        if done or step >= config.total_step - config.tfinal:
            self.model.update_and_allocate(step)

    def state(self) -> dict[str, torch.Tensor]:
        allocator = self.model.rankallocator
        found = {
            f"{kind}:{name}": tensor.contiguous()
            for kind in _AVERAGES
            for name, tensor in getattr(allocator, kind).items()
        }
        pattern = self.model.peft_config[ADAPTER].rank_pattern or {}
        return found | {f"kept:{name}": torch.tensor(mask) for name, mask in pattern.items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        allocator = self.model.rankallocator
        allocator.reset_ipt()
        device = self.wide[0].device
        pattern = {}
        for key, tensor in state.items():
            kind, _, name = key.partition(":")
            if kind == "kept":
                pattern[name] = tensor.tolist()
            else:
                getattr(allocator, kind)[name] = tensor.to(device)
        self.model.peft_config[ADAPTER].rank_pattern = pattern or None


_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""Of PEFT's allocator: the last importance of each weight, its average, and the average of how much it varies."""


def _stacked(factors: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The factors (width, rank), those of one shape together: (number, width, rank)."""
    by_shape: dict[torch.Size, list[torch.Tensor]] = {}
    for factor in factors:
        by_shape.setdefault(factor.shape, []).append(factor)
    return (torch.stack(same) for same in by_shape.values())


def set_ranks(model: PeftModel) -> None:
    """Make an AdaLoRA model's config say which ranks its weights have, so that only these are saved.

    PEFT saves the ranks of the last allocation. Between two of them, others have been trained again, and the weights of an
    earlier epoch have ranks of their own.
    """
    config: Any = model.peft_config[ADAPTER]
    if isinstance(config, AdaLoraConfig):
        config.rank_pattern = {
            f"{name}.lora_E": (layer.lora_E[ADAPTER] != 0).flatten().tolist()
            for name, layer in model.base_model.model.named_modules()
            if isinstance(layer, AdaLoraLayer)
        }
