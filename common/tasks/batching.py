"""Batches of inputs, and a model that computes them: what all tasks share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Batch = dict[str, torch.Tensor]
"""A model's inputs by name, most of them (batch, length), and for training `labels`."""


@dataclass(frozen=True)
class Collator:
    """Pads a batch of windows to its longest one: no token is computed that no window of the batch needs.

    `labels` are stacked: (batch, 2), the first and the last token of each answer; (batch,) where each is a class;
    (batch, classes) where each is a 0 or 1 for every class.
    """

    pad_token_id: int

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> Batch:
        """Tensors of (batch, length) and `labels`; items: arrays of one window each."""
        length = max(len(item["input_ids"]) for item in items)
        batch: Batch = {
            "input_ids": torch.full((len(items), length), self.pad_token_id),
            "attention_mask": torch.zeros(len(items), length, dtype=torch.long),
        }
        if "token_type_ids" in items[0]:
            batch["token_type_ids"] = torch.zeros(len(items), length, dtype=torch.long)
        for row, item in enumerate(items):
            n = len(item["input_ids"])
            batch["input_ids"][row, :n] = torch.from_numpy(item["input_ids"])
            batch["attention_mask"][row, :n] = 1
            if "token_type_ids" in item:
                batch["token_type_ids"][row, :n] = torch.from_numpy(item["token_type_ids"])
        batch["labels"] = torch.from_numpy(np.stack([item["labels"] for item in items]))
        return batch


def length_sorted_batches(
    lengths: np.ndarray, tokens: int, part: tuple[int, int] = (0, 1)
) -> list[np.ndarray]:
    """Window indices, longest first, in batches of at most `tokens` padded tokens and at least one window.

    part: (i, n) gives the share of the i-th of n processes: every n-th window by length.
    """
    order = np.argsort(-lengths, kind="stable")[part[0] :: part[1]]
    batches: list[np.ndarray] = []
    begin = 0
    while begin < len(order):
        size = max(1, tokens // int(lengths[order[begin]]))
        batches.append(order[begin : begin + size])
        begin += size
    return batches


def tokens_per_batch(model: torch.nn.Module, device: torch.device) -> int:
    """Padded tokens that are computed at once: the model's own number, or the one that torch is fastest with.

    On a CPU more tokens are slower, because the values between two layers no longer fit into the cache.
    """
    return getattr(model, "tokens_per_batch", 1_024 if device.type == "cpu" else 16_384)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[torch.device]:
    """The device of a model, which is in evaluation mode within the block and then in its former mode again."""
    device = next(model.parameters()).device
    # Switching all modules takes milliseconds, which a served model need not spend on each request.
    if not model.training:
        yield device
        return
    model.eval()
    try:
        yield device
    finally:
        model.train()
