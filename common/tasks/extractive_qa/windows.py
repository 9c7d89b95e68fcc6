"""Examples → windows of tokens with labels, and batches of windows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import UserError
from ...graphemes import cuts, widened

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

NO_CONTEXT = -1
"""Offset of a token outside the context (question, special token): decoding must never cut an answer there."""


@dataclass(frozen=True)
class Windows(torch.utils.data.Dataset):
    """W overlapping windows over E examples; a sequence of items that `Collator` batches.

    input_ids, token_type_ids (None where the model has none): W arrays of that window's length in tokens.
    offsets: W arrays (length, 2) of character offsets into the context; NO_CONTEXT outside the context. They never split
    a character as readers see it (`graphemes.cuts`): the text from any token to any other consists of whole characters.
    example_index: (W,) the example that each window was cut from.
    start_positions, end_positions: (W,) first and last token of the answer; 0, the [CLS] token, where the window
    does not hold every token of it.
    """

    input_ids: list[np.ndarray]
    token_type_ids: list[np.ndarray] | None
    offsets: list[np.ndarray]
    example_index: np.ndarray
    start_positions: np.ndarray
    end_positions: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        labels = np.array([self.start_positions[i], self.end_positions[i]])
        item = {"input_ids": self.input_ids[i], "labels": labels}
        if self.token_type_ids is not None:
            item["token_type_ids"] = self.token_type_ids[i]
        return item

    @property
    def lengths(self) -> np.ndarray:
        """(W,) tokens in each window."""
        return np.array([len(ids) for ids in self.input_ids])


def make_windows(
    tokenizer: "PreTrainedTokenizerBase",
    examples: Iterable[Mapping[str, Any]],
    *,
    max_length: int,
    doc_stride: int,
    segment_ids: bool,
) -> Windows:
    """Cut examples (`question`, `context`, `answers`) into windows of at most `max_length` tokens.

    Neighbouring windows share `doc_stride` tokens. A question may take half of a window; a longer one is cut, so that
    every window has room for context. The offsets need a fast tokenizer.
    """
    if not tokenizer.is_fast:
        raise UserError(f"{tokenizer.name_or_path} has no fast tokenizer, which answer offsets need.")
    examples = list(examples)
    questions = [shorten(tokenizer, example["question"].lstrip(), max_length // 2) for example in examples]
    names = ("input_ids", "token_type_ids", "offsets", "index", "start", "end")
    columns: dict[str, list[Any]] = {name: [] for name in names}
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
        context, found = "", None
        windows = groupby(enumerate(encoded["overflow_to_sample_mapping"]), key=lambda pair: pair[1])
        for sample, of_sample in windows:
            numbers = [i for i, _ in of_sample]
            # Questions on the same context follow one another.
            if context != (context := chunk[sample]["context"]):
                found = cuts(context)
            offsets = [context_offsets(encoded.encodings[i], context) for i in numbers]
            labels = answer_tokens(offsets, chunk[sample].get("answers"))
            for i, of_window, (start, end) in zip(numbers, offsets, labels, strict=True):
                columns["input_ids"].append(np.array(encoded["input_ids"][i], dtype=np.int64))
                columns["token_type_ids"].append(np.array(encoded["token_type_ids"][i], dtype=np.int64))
                columns["offsets"].append(widened(of_window, found))
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


def shorten(tokenizer: "PreTrainedTokenizerBase", text: str, tokens: int) -> str:
    """The longest beginning of `text` that is at most `tokens` tokens."""
    if len(text) <= tokens:
        return text
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text if len(offsets) <= tokens else text[: offsets[tokens - 1][1]]


def context_offsets(encoding: "Encoding", context: str) -> np.ndarray:
    """(length, 2) character offsets of the context's tokens, without the leading space that some tokenizers include."""
    found = []
    for (start, end), sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True):
        if sequence != 1:
            start = end = NO_CONTEXT
        while start < end and context[start].isspace():
            start += 1
        found.append((start, end))
    return np.array(found, dtype=np.int32).reshape(-1, 2)


def answer_tokens(
    windows: Sequence[np.ndarray], answers: Mapping[str, Sequence[Any]] | None
) -> list[tuple[int, int]]:
    """First and last token, in each window of one example, of the first answer with a place; (0, 0), the [CLS] token, where
    a window does not hold every token that overlaps it.

    windows: the offsets of all the example's windows. An answer may begin or end with characters that no token has (accents,
    spaces, zero-width characters): tokens decide whether a window holds it, not characters.
    """
    given = zip(answers["text"], answers["answer_start"], strict=True) if answers else ()
    # References that only serve for scoring have no place.
    text, begin = next(((text, start) for text, start in given if start >= 0), ("", -1))
    if not text:
        return [(0, 0)] * len(windows)
    end = begin + len(text)
    labels, places = [], []
    for offsets in windows:
        starts, ends = offsets[:, 0], offsets[:, 1]
        tokens = np.flatnonzero((starts < end) & (ends > begin) & (starts < ends))
        first, last = (int(tokens[0]), int(tokens[-1])) if len(tokens) else (0, 0)
        labels.append((first, last))
        places.append((starts[first], ends[last]) if len(tokens) else None)
    found = [place for place in places if place]
    whole = (min(place[0] for place in found), max(place[1] for place in found)) if found else None
    return [label if place == whole else (0, 0) for label, place in zip(labels, places, strict=True)]


def cut_out(tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each example's first answer as its tokens' offsets cut it out of the context; "" where no window holds it."""
    windows = make_windows(tokenizer, examples, max_length=384, doc_stride=128, segment_ids=False)
    texts = [""] * len(examples)
    for i in np.flatnonzero(windows.end_positions).tolist():
        example, offsets = int(windows.example_index[i]), windows.offsets[i]
        begin, end = offsets[windows.start_positions[i], 0], offsets[windows.end_positions[i], 1]
        texts[example] = examples[example]["context"][begin:end]
    return texts
