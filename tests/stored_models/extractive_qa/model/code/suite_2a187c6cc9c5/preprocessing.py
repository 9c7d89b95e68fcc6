"""Examples → windows of tokens with labels, and batches of windows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .errors import UserError

NO_CONTEXT = -1
"""Offset of a token that is not context (question, special token): decoding must never cut an answer there."""


@dataclass(frozen=True)
class Windows(torch.utils.data.Dataset):
    """W overlapping windows over E examples; a sequence of items that `Collator` batches.

    input_ids, token_type_ids (None where the model has none): W arrays of that window's length in tokens.
    offsets: W arrays (length, 2) of character offsets into the context; NO_CONTEXT outside the context.
    example_index: (W,) the example that each window was cut from.
    start_positions, end_positions: (W,) first and last token of the answer; 0, the [CLS] token, where the window
    does not hold the whole answer.
    """

    input_ids: list[np.ndarray]
    token_type_ids: list[np.ndarray] | None
    offsets: list[np.ndarray]
    example_index: np.ndarray
    start_positions: np.ndarray
    end_positions: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, i: int) -> dict:
        labels = np.array([self.start_positions[i], self.end_positions[i]])
        item = {"input_ids": self.input_ids[i], "labels": labels}
        if self.token_type_ids is not None:
            item["token_type_ids"] = self.token_type_ids[i]
        return item

    @property
    def lengths(self) -> np.ndarray:
        """(W,) tokens in each window."""
        return np.array([len(ids) for ids in self.input_ids])


@dataclass(frozen=True)
class Collator:
    """Pads a batch of windows to its longest one: no token is computed that no window of the batch needs.

    `labels` are stacked: (batch, 2), the first and the last token of each answer, or (batch,) where each is a class.
    """

    pad_token_id: int

    def __call__(self, items: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        length = max(len(item["input_ids"]) for item in items)
        batch = {
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


def make_windows(
    tokenizer, examples: Iterable[Mapping], *, max_length: int, doc_stride: int, segment_ids: bool
) -> Windows:
    """Cut examples (`question`, `context`, `answers`) into windows of at most `max_length` tokens.

    Neighbouring windows share `doc_stride` tokens. A question may take half of a window; what is longer is cut, so
    that every window has room for context. A fast tokenizer is needed for the offsets.
    """
    if not tokenizer.is_fast:
        raise UserError(f"{tokenizer.name_or_path} has no fast tokenizer, which answer offsets need.")
    examples = list(examples)
    questions = [shorten(tokenizer, example["question"].lstrip(), max_length // 2) for example in examples]
    columns = {"input_ids": [], "token_type_ids": [], "offsets": [], "index": [], "start": [], "end": []}
    for begin in range(0, len(examples), 1000):
        chunk = examples[begin : begin + 1000]
        encoded = tokenizer(
            questions[begin : begin + 1000],
            [example["context"] for example in chunk],
            truncation="only_second",
            max_length=max_length,
            stride=doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        for i, sample in enumerate(encoded["overflow_to_sample_mapping"]):
            offsets = context_offsets(encoded.encodings[i], chunk[sample]["context"])
            start, end = answer_tokens(offsets, chunk[sample].get("answers"))
            columns["input_ids"].append(np.array(encoded["input_ids"][i], dtype=np.int64))
            columns["token_type_ids"].append(np.array(encoded["token_type_ids"][i], dtype=np.int64))
            columns["offsets"].append(offsets)
            columns["index"].append(begin + sample)
            columns["start"].append(start)
            columns["end"].append(end)
    return Windows(
        input_ids=columns["input_ids"],
        token_type_ids=columns["token_type_ids"] if segment_ids else None,
        offsets=columns["offsets"],
        example_index=np.array(columns["index"], dtype=np.int64),
        start_positions=np.array(columns["start"], dtype=np.int64),
        end_positions=np.array(columns["end"], dtype=np.int64),
    )


def shorten(tokenizer, text: str, tokens: int) -> str:
    """The longest beginning of `text` that is at most `tokens` tokens."""
    if len(text) <= tokens:
        return text
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text if len(offsets) <= tokens else text[: offsets[tokens - 1][1]]


def context_offsets(encoding, context: str) -> np.ndarray:
    """(length, 2) character offsets of the context's tokens, without the space that some tokenizers count in."""
    found = []
    for (start, end), sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True):
        if sequence != 1:
            start = end = NO_CONTEXT
        while start < end and context[start].isspace():
            start += 1
        found.append((start, end))
    return np.array(found, dtype=np.int32).reshape(-1, 2)


def answer_tokens(offsets: np.ndarray, answers: Mapping | None) -> tuple[int, int]:
    """First and last token of the first answer; (0, 0), the [CLS] token, where this window does not hold all of it."""
    context = np.flatnonzero(offsets[:, 1] != NO_CONTEXT)
    if not answers or not answers["text"] or not len(context):
        return 0, 0
    begin = answers["answer_start"][0]
    end = begin + len(answers["text"][0])
    if offsets[context[0], 0] > begin or offsets[context[-1], 1] < end:
        return 0, 0
    first = np.searchsorted(offsets[context, 1], begin, side="right")
    last = np.searchsorted(offsets[context, 0], end, side="left") - 1
    # The tokenizer may have dropped every character of the answer.
    return (int(context[first]), int(context[last])) if first <= last else (0, 0)


def length_sorted_batches(
    lengths: np.ndarray, tokens: int, part: tuple[int, int] = (0, 1)
) -> list[np.ndarray]:
    """Window indices, longest first, in batches of at most `tokens` padded tokens (but at least one window).

    part: (i, n) gives the share of the i-th of n processes, every n-th window by length.
    """
    order = np.argsort(-lengths, kind="stable")[part[0] :: part[1]]
    batches, begin = [], 0
    while begin < len(order):
        size = max(1, tokens // int(lengths[order[begin]]))
        batches.append(order[begin : begin + size])
        begin += size
    return batches
