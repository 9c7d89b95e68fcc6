"""The gradient norm of each layer while a model trains."""

import re
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

NORMS = "gradient_norms"

_LAYER = re.compile(r"(?:^|\.)(?:(encoder|decoder)\.)?(?:(?:albert_)?layers?|h|block)\.(\d+)\.")


def layer_of(parameter: str, stacks: bool = False) -> str:
    """The part of a model that a parameter belongs to, by its name: "layer 3", "embeddings", "virtual tokens" or "head".

    stacks: whether encoder and decoder count their layers apart.
    """
    if match := _LAYER.search(parameter):
        stack = f"{match[1]} " if stacks and match[1] else ""
        return f"{stack}layer {match[2]}"
    if "prompt_encoder" in parameter:
        return "virtual tokens"
    # The embeddings of GPT-2, T5, BART and ALBERT have names of their own; MPNet and DeBERTa have some of relative positions.
    if re.search(
        r"(^|\.)(embeddings?|wte|wpe|shared|embed_\w+|\w+_embeddings?|embedding_\w+|rel\w+_bias)\.", parameter
    ):
        return "embeddings"
    return "head"


class GradientNorms(TrainerCallback):
    """Keeps, at the logging steps, the norm of the gradients of each layer's trained parameters, before clipping.

    They lie in the trainer's log history, which checkpoints hold, so that a resumed run has those of its first part.
    """

    def __init__(self) -> None:
        self.layers: dict[str, list[torch.nn.Parameter]] = {}
        self.total: torch.Tensor | None = None
        """Norm of all gradients of the step before they were clipped; the trainer sets it."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        stacks = bool(getattr(model.config, "is_encoder_decoder", False))
        self.layers = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.layers.setdefault(layer_of(name, stacks), []).append(parameter)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step + 1
        if step != 1 and step % args.logging_steps:
            return
        norms = {
            name: torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            for name, parameters in self.layers.items()
        }
        # Gradients are clipped, and those of fp16 unscaled, before this event.
        clipped = torch.nn.utils.get_total_norm(list(norms.values()))
        scale = float(self.total / clipped) if self.total is not None and clipped > 0 else 1.0
        state.log_history.append(
            {"step": step, NORMS: {name: scale * float(norm) for name, norm in norms.items()}}
        )


def split_off(log_history: list[dict]) -> tuple[list[dict], list[dict]]:
    """(the history without gradient norms; entries of `step` and the norm of each layer by its name)."""
    rest = [entry for entry in log_history if NORMS not in entry]
    return rest, [{"step": entry["step"]} | entry[NORMS] for entry in log_history if NORMS in entry]
