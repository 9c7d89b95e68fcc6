"""Texts → tokens, and their logits with a classification model: the one path that evaluation and serving both take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..batching import Collator, evaluating, length_sorted_batches, tokens_per_batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Texts(torch.utils.data.Dataset):
    """N texts as tokens; a sequence of items that `Collator` batches.

    input_ids: N arrays of that text's length in tokens. labels: (N,) class of each, -100 where it is not known.
    segment_ids: whether items have `token_type_ids`, which are all 0. names: of the classes, in the order of the logits.
    """

    input_ids: list[np.ndarray]
    labels: np.ndarray
    segment_ids: bool
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        item = {"input_ids": self.input_ids[i], "labels": self.labels[i]}
        if self.segment_ids:
            item["token_type_ids"] = np.zeros_like(self.input_ids[i])
        return item

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each text."""
        return np.array([len(ids) for ids in self.input_ids])


def make_texts(
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Mapping[str, Any]],
    *,
    max_length: int,
    segment_ids: bool,
    names: Sequence[str],
) -> Texts:
    """The first `max_length` tokens, special ones counted, of each example's `text`, with its `label` if it has one."""
    input_ids: list[np.ndarray] = []
    for begin in range(0, len(examples), 1000):
        encoded = tokenizer(
            [example["text"] for example in examples[begin : begin + 1000]],
            truncation=True,
            max_length=max_length,
        )
        input_ids += [np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]]
    labels = np.array([example.get("label", -100) for example in examples], dtype=np.int64)
    return Texts(input_ids, labels, segment_ids, tuple(names))


@torch.inference_mode()
def predict_logits(
    model: torch.nn.Module,
    texts: Texts,
    collator: Collator,
    *,
    part: tuple[int, int] = (0, 1),
    progress: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(indices, logits) of the i-th of n shares of the texts, for part (i, n): (n,) int64 and (n, classes) float32.

    progress: label of a progress bar. The model is left in the mode that it came in.
    """
    # A share without any text also has arrays.
    found: list[tuple[np.ndarray, np.ndarray]] = [
        (np.zeros(0, dtype=np.int64), np.zeros((0, len(texts.names)), dtype=np.float32))
    ]
    with evaluating(model) as device:
        batches = length_sorted_batches(texts.lengths, tokens_per_batch(model, device), part)
        for indices in tqdm(batches, desc=progress, disable=progress is None, leave=False):
            batch = collator([texts[i] for i in indices])
            inputs = {name: t.to(device) for name, t in batch.items() if name != "labels"}
            found.append((indices, model(**inputs).logits.float().cpu().numpy()))
    return join(found)


def join(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(indices, logits) of all parts together, in the order of the texts."""
    indices, logits = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(indices)
    return indices[order], logits[order]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the classes, (N, classes), in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
