"""Answers that reach to the ends of words, as the pipeline's `align_to_words` made them."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def words(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[tuple[int, int]]:
    """The characters of the words of a text, in order: what the tokenizer takes apart before it looks for tokens.

    A "word" with a space in it is none: the tokenizer of some models leaves the text whole.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False)
    found: dict[int, tuple[int, int]] = {}
    for word, (start, end) in zip(encoded.word_ids(), encoded["offset_mapping"], strict=True):
        if word is not None and start < end:
            first, last = found.get(word, (start, end))
            found[word] = (min(first, start), max(last, end))
    trimmed = (_trimmed(text, *place) for place in found.values())
    return sorted((a, b) for a, b in trimmed if a < b and not any(c.isspace() for c in text[a:b]))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without the spaces around it, which some tokenizers count as part of a word."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def widened(start: int, end: int, places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """A span that reaches to the ends of the words in which it begins and ends. places: as `words` gives them."""
    first = bisect_right(places, (start, float("inf"))) - 1
    last = bisect_right(places, (end - 1, float("inf"))) - 1
    if first >= 0 and places[first][1] > start:
        start = places[first][0]
    if last >= 0 and places[last][1] >= end:
        end = places[last][1]
    return start, end


def aligned(
    candidates: Iterable[tuple[int, int, float]], places: Sequence[tuple[int, int]]
) -> list[tuple[int, int, float]]:
    """(start, end, score) of the candidates, widened; those that become one have the sum of the scores.

    "No answer" (-1 to -1) stays as it is.
    """
    sums: dict[tuple[int, int], float] = {}
    for start, end, score in candidates:
        place = widened(start, end, places) if start >= 0 else (start, end)
        sums[place] = sums.get(place, 0.0) + score
    return [(start, end, score) for (start, end), score in sums.items()]
