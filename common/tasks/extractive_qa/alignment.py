"""A teacher's span logits, carried over to the windows of a student that has another tokenizer.

Both kinds of tokens stand at characters of the same context. What a window of the teacher's says of a token is its odds against
"no answer", exp(logit - logit of the window's [CLS] token): odds can be taken from several windows and compared, logits cannot.

- The odds of a first token belong to the student's token that holds its first character, those of a last token to the one
  that holds its last character, as labels do (`windows.answer_tokens`). Odds that fall on one token add up.
- Each character is judged by the window of the teacher's in which it has the most context (Devlin et al., 2019, `run_squad.py`
  of BERT). Only context that the student's window has too is counted: of windows that are cut alike, the same one judges.
- A window without all of an answer is labelled "no answer". So the odds of answers that begin or end outside of the student's
  window are added to its [CLS] token.

Where both tokenizers cut a window alike, the result is the teacher's own logits there less that of its [CLS] token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .windows import NO_CONTEXT, Windows

FLOOR = -1e6
"""Logit of a token on which no odds fall, such as one of the question. Divided by any temperature (at most 100) it is far enough
below all others that its probability is 0 in single precision, and finite: in a divergence, 0 times infinity is no number."""

_END = int(np.iinfo(np.int64).max)

_Odds = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(m,) the student's token, 0 for [CLS]; the logarithm of the odds; the share of them that is that token's, [CLS] has the rest."""


@dataclass(frozen=True)
class _Part:
    """The part of a context that a window holds.

    tokens: (n,) its tokens, by their place in the window. begins, ends: (n,) their characters, ends exclusive. first, last: its
    characters, last exclusive; what stands before a context's first token counts to its first window, what stands behind
    its last token to its last one.
    """

    tokens: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    first: int
    last: int


def carried_over(
    logits: Sequence[np.ndarray], of: Windows, to: Windows, longest: int
) -> Iterator[np.ndarray]:
    """(length, 2) float32 for each window of `to`, in order: the teacher's logits of first and last token there.

    of, to: the teacher's and the student's windows of the same examples. logits: for each window of `of`, the teacher's
    (its length, 2). longest: tokens in the longest answer, of the teacher's.
    """
    taught = _parts(of, with_empty=True)
    examples = to.example_index.tolist()
    bounds = [0, *np.cumsum(np.bincount(of.example_index, minlength=max(examples, default=-1) + 1)).tolist()]
    for i, part in enumerate(_parts(to, with_empty=False)):
        begin, end = bounds[examples[i] : examples[i] + 2]
        found = [
            _odds(logits[begin + k], taught[begin + k], part, seams, longest)
            for k, seams in _judges(taught[begin:end], part)
        ]
        length = len(to.offsets[i])
        yield np.stack([_logits(length, [pair[side] for pair in found]) for side in (0, 1)], axis=1)


def _parts(windows: Windows, with_empty: bool) -> list[_Part]:
    """Of every window. with_empty: with tokens that have no character, which no label is ever on."""
    found = []
    changes = np.diff(windows.example_index, prepend=-1, append=-1) != 0
    for i, offsets in enumerate(windows.offsets):
        real = offsets[:, 1] != NO_CONTEXT if with_empty else offsets[:, 0] < offsets[:, 1]
        tokens = np.flatnonzero(real)
        begins, ends = offsets[tokens].T.astype(np.int64)
        first = 0 if changes[i] or not len(tokens) else int(begins[0])
        last = _END if changes[i + 1] or not len(tokens) else int(ends[-1])
        found.append(_Part(tokens, begins, ends, first, last))
    return found


def _judges(taught: Sequence[_Part], to: _Part) -> list[tuple[int, tuple[int, int]]]:
    """Which windows of the teacher's judge a window of the student's, and between which characters each.

    Cut to the student's window, one that another one holds has nothing to add. Neighbours take turns in the middle of what
    they share, where a character has as much context in both.
    """
    kept: list[tuple[int, int, int]] = []
    for k, part in enumerate(taught):
        first, last = max(part.first, to.first), min(part.last, to.last)
        while kept and first <= kept[-1][1] and last > kept[-1][2]:
            kept.pop()
        if first < last and not (kept and last <= kept[-1][2]):
            kept.append((k, first, last))
    turns = [(before[2] + after[1]) // 2 for before, after in zip(kept, kept[1:], strict=False)]
    bounds = [-1, *turns, _END]
    return [(kept[n][0], (bounds[n], bounds[n + 1])) for n in range(len(kept))]


def _odds(
    logits: np.ndarray, taught: _Part, to: _Part, seams: tuple[int, int], longest: int
) -> tuple[_Odds, _Odds]:
    """What a window of the teacher's says of the first and of the last tokens between two characters."""
    odds = logits[taught.tokens].astype(np.float64) - logits[0].astype(np.float64)
    # Of several tokens that share a character, the first one begins an answer and the last one ends it. Accumulated, so that
    # the search is right for offsets that do not rise.
    highest, lowest = np.maximum.accumulate(to.ends), np.minimum.accumulate(to.begins[::-1])[::-1]
    first = np.asarray(np.searchsorted(highest, taught.begins, side="right"))
    last = np.asarray(np.searchsorted(lowest, taught.ends, side="left")) - 1
    begins = (first < len(to.tokens)) & (taught.begins >= to.first)
    ends = (last >= 0) & (taught.ends <= to.last)
    share = _ending(odds[:, 1], ends, longest), _ending(odds[::-1, 0], begins[::-1], longest)[::-1]
    judged = (
        (taught.begins >= seams[0]) & (taught.begins < seams[1]),
        (taught.ends > seams[0]) & (taught.ends <= seams[1]),
    )
    found = []
    for side, (token, inside) in enumerate(((first, begins), (last, ends))):
        place: np.ndarray = np.zeros(len(token), dtype=np.int64)
        place[inside] = to.tokens[token[inside]]
        chosen = judged[side]
        found.append((place[chosen], odds[chosen, side], share[side][chosen]))
    return found[0], found[1]


def _ending(odds: np.ndarray, inside: np.ndarray, longest: int) -> np.ndarray:
    """(n,) for the answers that begin at each token, the share of those that end inside of the student's window.

    odds: (n,) the logarithm of the odds that an answer ends there. inside: (n,) whether that is inside.
    """
    if inside.all():
        return np.ones(len(odds))
    beyond = np.full(longest - 1, -np.inf)
    reached = np.lib.stride_tricks.sliding_window_view(np.concatenate([odds, beyond]), longest)
    held = np.lib.stride_tricks.sliding_window_view(np.concatenate([inside, beyond > 0]), longest)
    weight = np.exp(reached - reached.max(axis=1, keepdims=True))
    share: np.ndarray = (weight * held).sum(axis=1) / weight.sum(axis=1)
    return share


def _logits(length: int, odds: Sequence[_Odds]) -> np.ndarray:
    """(length,) float32: the logarithm of the odds of each token; those of [CLS] are 1 and what falls on it."""
    # That of "no answer" itself is the first entry.
    place, value, share = (
        np.concatenate([[start], *columns])
        for start, columns in zip((0, 0.0, 1.0), zip(*odds, strict=True) if odds else ((),) * 3, strict=True)
    )
    place = place.astype(np.int64)
    top = value.max()
    mass = np.exp(value - top)
    sums = np.bincount(place, mass * share, minlength=length)
    sums[0] += (mass * (1 - share)).sum()
    found: np.ndarray = np.full(length, FLOOR, dtype=np.float32)
    found[sums > 0] = np.log(sums[sums > 0]) + top
    return found
