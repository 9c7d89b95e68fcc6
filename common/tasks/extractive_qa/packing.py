"""Batches without padding: the windows of a batch lie end to end in one row, and each attends to itself alone."""

from typing import Any

import torch

from ..batching import Batch


def end_to_end(batch: Batch, first_position: int) -> dict[str, Any]:
    """A model's inputs without padding: `input_ids` and the like (1, real tokens), and where windows begin.

    The names are transformers' for flash attention; `cpu_kernels.attention` reads them too. first_position: id of a
    window's first position.
    """
    mask = batch["attention_mask"].bool()
    rows, length = mask.shape
    bounds = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0))
    positions = torch.arange(first_position, first_position + length, device=mask.device).expand(rows, -1)
    ids = {name: ids for name, ids in batch.items() if name != "attention_mask"} | {"position_ids": positions}
    return {name: tensor[mask].unsqueeze(0) for name, tensor in ids.items()} | {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": length,
        "max_length_k": length,
    }


def in_rows(values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Values of tokens laid end to end (1, real tokens) → (batch, length), with 0 for padding."""
    return torch.zeros(attention_mask.shape, dtype=values.dtype, device=values.device).masked_scatter(
        attention_mask.bool(), values
    )
