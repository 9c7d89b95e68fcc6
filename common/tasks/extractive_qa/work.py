"""The losses of extractive question answering."""

import torch

from ...models.families import Family
from ..batching import Batch
from ..interface import Loss
from .packing import end_to_end, in_rows


def span_loss(model: torch.nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of first and last answer token, summed over a batch; labels: (batch, 2).

    The softmax leaves padding out. transformers' own loss includes it, so that a window's loss depends on the other
    windows of its batch.
    """
    out = model(**batch)
    return _cross_entropy(out.start_logits, out.end_logits, batch["attention_mask"], labels)


def smoothed_span_loss(smoothing: float) -> Loss:
    """`span_loss` with a share of each label's probability spread evenly over the window's real tokens."""

    def loss(model: torch.nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        out = model(**batch)
        return _cross_entropy(out.start_logits, out.end_logits, batch["attention_mask"], labels, smoothing)

    return loss


def unpadded_span_loss(family: Family, smoothing: float = 0.0) -> Loss:
    """`smoothed_span_loss` that computes no padding at all, for a family with absolute positions."""
    first_position = family.first_position
    if first_position is None:
        raise TypeError(f"{family.model_type} has relative positions: its batches need padding")

    def loss(model: torch.nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        mask = batch["attention_mask"]
        out = model(**end_to_end(batch, first_position))
        starts, ends = in_rows(out.start_logits, mask), in_rows(out.end_logits, mask)
        return _cross_entropy(starts, ends, mask, labels, smoothing)

    return loss


def _cross_entropy(
    starts: torch.Tensor, ends: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    logits = torch.stack([starts, ends], dim=1).float()
    logits = logits.masked_fill(mask[:, None] == 0, torch.finfo(logits.dtype).min)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    if not smoothing:
        return loss
    # torch's own smoothing would count the padding, whose logarithms of probabilities have no bound.
    logs = logits.log_softmax(-1).masked_fill(mask[:, None] == 0, 0.0)
    even = -(logs.sum(-1) / mask.sum(-1, keepdim=True)).sum()
    return (1 - smoothing) * loss + smoothing * even
