"""What a technique does beside the optimizer while it is trained: the trainer calls it without knowing the technique."""

from abc import ABC, abstractmethod

import torch
from torch import nn


class TrainingHook(ABC):
    """Acts on a model in training. Everything that it does after a step follows from the model and its own state."""

    @abstractmethod
    def begin(self, steps: int) -> None:
        """Training is about to begin, or to go on, and has this many optimizer steps in all. UserError where they do not suffice."""

    @abstractmethod
    def extra_loss(self) -> torch.Tensor:
        """What is added to the loss of an optimizer step; a scalar, once for each step, however many batches it has."""

    @abstractmethod
    def after_step(self, step: int, done: bool = True) -> None:
        """The optimizer has made its step (the first one is 1), and the gradients are still there.

        done: False where the optimizer left the step out because its gradients were not finite.
        """

    @abstractmethod
    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold beside the trained parameters."""

    @abstractmethod
    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `state` gave."""


def hook_of(model: nn.Module) -> TrainingHook | None:
    """The hook that a model's technique needs; None for most."""
    from peft import AdaLoraModel

    from .adalora import Budget

    tuner = getattr(model, "base_model", None)
    return Budget(tuner) if isinstance(tuner, AdaLoraModel) else None
