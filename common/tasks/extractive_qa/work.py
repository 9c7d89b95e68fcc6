"""The losses of extractive question answering."""

from typing import Any

import torch

from ...models.families import Family
from ..interface import Loss
from .packing import end_to_end, in_rows


def span_loss(model: Any, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of first and last answer token, summed over a batch; labels: (batch, 2).

    The softmax leaves padding out; transformers' own loss does not, so that there a window's loss depends on the
    windows that it happens to share a batch with.
    """
    out = model(**batch)
    return _cross_entropy(out.start_logits, out.end_logits, batch["attention_mask"], labels)


def unpadded_span_loss(family: Family) -> Loss:
    """`span_loss` that computes no padding at all, for a family with absolute positions."""

    def loss(model: Any, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        mask = batch["attention_mask"]
        out = model(**end_to_end(batch, family.first_position))
        return _cross_entropy(in_rows(out.start_logits, mask), in_rows(out.end_logits, mask), mask, labels)

    return loss


def _cross_entropy(
    starts: torch.Tensor, ends: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    logits = torch.stack([starts, ends], dim=1).float()
    logits = logits.masked_fill(mask[:, None] == 0, torch.finfo(logits.dtype).min)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
