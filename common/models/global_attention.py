"""Which tokens see the whole input, in models whose other tokens see their neighbours only (Longformer).

transformers puts this attention on the question too, but refuses a batch in which a row has another number of separators:
one text that says "</s>" would stop a training run.
"""

from typing import Any

import torch
from torch import nn

from .families import FAMILIES


def put_on(model: nn.Module, head: str) -> nn.Module:
    """The model itself, which from here on sees every question whole where its family needs that; others as they are."""
    family = FAMILIES.get(model.config.model_type)
    if family is not None and family.global_question and head == "QuestionAnswering":
        model.register_forward_pre_hook(_with_question, with_kwargs=True)
    return model


def question(input_ids: torch.Tensor, separator: int) -> torch.Tensor:
    """1 for the tokens before each row's first separator, 0 for the others; both (batch, length)."""
    return ((input_ids == separator).cumsum(1) == 0).long()


def _with_question(
    model: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if inputs.get("input_ids") is None or inputs.get("global_attention_mask") is not None:
        return None
    mask = question(inputs["input_ids"], model.config.sep_token_id)
    return args, inputs | {"global_attention_mask": mask}
