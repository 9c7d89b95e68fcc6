"""Texts → tokens, and their logits with a classification model: the one path that evaluation and serving both take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ...errors import UserError
from ..batching import Collator, evaluating, length_sorted_batches, tokens_per_batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
UNKNOWN = -100
"""The label of a text whose label is not known, as torch's cross-entropy ignores it."""


@dataclass(frozen=True)
class Texts(torch.utils.data.Dataset[dict[str, np.ndarray]]):
    """N texts, or pairs of texts, as tokens; a sequence of items that `Collator` batches.

    input_ids: N arrays of that text's length in tokens. labels: (N,) class of each, UNKNOWN where it is not known; with
    `multi_label` N arrays of the classes that each has. segment_ids: whether items have `token_type_ids`. names: of the
    classes, in the order of the logits. segments: N arrays of 0 (first text) and 1 (second); None: all of them are 0.
    """

    input_ids: list[np.ndarray]
    labels: Any
    segment_ids: bool
    names: tuple[str, ...]
    multi_label: bool = False
    segments: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        item = {"input_ids": self.input_ids[i], "labels": self.target(i)}
        if self.segment_ids:
            ids = self.input_ids[i]
            item["token_type_ids"] = (
                np.zeros_like(ids) if self.segments is None else self.segments[i].astype(ids.dtype)
            )
        return item

    def target(self, i: int) -> Any:
        """The class of a text; with `multi_label` a 1 for each class that it has: (classes,) float32."""
        if not self.multi_label:
            return self.labels[i]
        made: np.ndarray = np.zeros(len(self.names), dtype=np.float32)
        made[self.labels[i]] = 1
        return made

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
    multi_label: bool = False,
) -> Texts:
    """At most `max_length` tokens of each example's `text` and, where examples have it, `text_pair`, with its `label` if known.

    Special tokens count. Of a text that is too long the beginning is kept; of a pair tokens are taken off the end of
    whichever text is longer at that moment (`longest_first`). A label is a class, with `multi_label` a list of them.
    UserError where no token of a text would be left.
    """
    pairs = bool(len(examples)) and "text_pair" in examples[0]
    least = tokenizer.num_special_tokens_to_add(pair=pairs) + (2 if pairs else 1)
    if max_length < least:
        what = "pairs of texts" if pairs else "texts"
        raise UserError(f"--max_length is {max_length}: {what} need at least {least} tokens in this model.")
    input_ids: list[np.ndarray] = []
    # XLNet's tokenizer gives segments to single texts too.
    divided = pairs or any(tokenizer("a").get("token_type_ids", ()))
    segments: list[np.ndarray] | None = [] if divided and segment_ids else None
    for begin in range(0, len(examples), 1000):
        some = examples[begin : begin + 1000]
        encoded = tokenizer(
            [example["text"] for example in some],
            [example["text_pair"] for example in some] if pairs else None,
            truncation="longest_first",
            max_length=max_length,
            return_token_type_ids=True if segments is not None else None,
        )
        input_ids += [np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]]
        if segments is not None:
            segments += [np.array(ids, dtype=np.int8) for ids in encoded["token_type_ids"]]
    labels: Any
    if multi_label:
        labels = [np.array(example.get("label", ()), dtype=np.int64) for example in examples]
    else:
        labels = np.array([example.get("label", UNKNOWN) for example in examples], dtype=np.int64)
    return Texts(input_ids, labels, segment_ids, tuple(names), multi_label, segments)


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


def independent_probabilities(logits: np.ndarray) -> np.ndarray:
    """The sigmoid of each logit, (N, classes), in float64: the probability of each label by itself."""
    # exp overflows for neither sign in this form.
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
