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
from torch import nn

from ..errors import UserError
from .hooks import TrainingHook

ADAPTER = "default"
STEPS = 1000
"""A config's schedule is in thousandths of the steps, until a run's number of steps is known."""


class Budget(TrainingHook):
    """Drives PEFT's rank allocator."""

    def __init__(self, model: AdaLoraModel):
        self.model = model
        self.schedule: AdaLoraConfig = replace(model.peft_config[ADAPTER])
        """As the technique gave it: its steps are shares of its own total."""
        parameters = dict(model.model.named_parameters())
        self.factors = [p for name, p in parameters.items() if _factor(name) in ("lora_A", "lora_B")]

    def begin(self, steps: int) -> None:
        config, whole = self.model.peft_config[ADAPTER], self.schedule.total_step
        assert whole is not None
        config.total_step = steps
        config.tinit = round(self.schedule.tinit / whole * steps)
        config.tfinal = round(self.schedule.tfinal / whole * steps)
        if steps - config.tfinal - config.tinit < 2:
            raise UserError(
                f"AdaLoRA cannot share out its ranks in {steps} optimizer steps, of which the first {config.tinit} and the last "
                f"{config.tfinal} leave them as they are: train for more epochs, or use a smaller --initial_share and --final_share."
            )

    def extra_loss(self) -> torch.Tensor:
        """orth_reg_weight x the mean over all factors of ||A A' - I|| or ||B' B - I||."""
        total = torch.zeros((), device=self.factors[0].device)
        for tall in _stacked(self.factors):
            covariance = tall.mT @ tall
            eye = torch.eye(covariance.shape[-1], device=covariance.device)
            total = total + torch.linalg.matrix_norm(covariance - eye).sum()
        return self.model.peft_config[ADAPTER].orth_reg_weight / len(self.factors) * total

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
        device = self.factors[0].device
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


def _factor(name: str) -> str:
    """Such as lora_A, of a parameter's name."""
    return name.rpartition(f".{ADAPTER}")[0].rpartition(".")[2]


def _stacked(factors: list[nn.Parameter]) -> Iterator[torch.Tensor]:
    """The factors, those of one shape together and upright: (number, width, rank)."""
    by_shape: dict[tuple[bool, torch.Size], list[torch.Tensor]] = {}
    for factor in factors:
        flat = factor.shape[0] < factor.shape[1]
        by_shape.setdefault((flat, factor.shape), []).append(factor.mT if flat else factor)
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
