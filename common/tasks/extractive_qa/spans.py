"""Model outputs + windows → answers: exact best spans, n-best lists, the no-answer decision.

Logits are reduced to the n best spans of each window as they are produced, so that memory grows with
windows x n_best and never with windows x length.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, overload

import numpy as np

from ...scoring.squad import f1
from .ranking import group_bounds, largest, ordered, ranked

_NONE = np.float32(-np.inf)
_WORST = np.finfo(np.float32).min
"""The lowest score that is one: -inf masks."""
_LOW = np.int64(0xFFFFFFFF)
_NOWHERE = np.int64(-1)


@dataclass(frozen=True)
class Spans:
    """The n best spans of W windows, best first.

    score: (W, n) float32, start logit + end logit; -inf where a window has fewer than n spans.
    start, end: (W, n) int32, token indices, end inclusive; 0 where the score is -inf.
    null_score: (W,) float32, the null token's start logit + end logit.
    window: (W,) int64, the index of each row's window.
    """

    score: np.ndarray
    start: np.ndarray
    end: np.ndarray
    null_score: np.ndarray
    window: np.ndarray

    def __len__(self) -> int:
        return len(self.window)


_CANDIDATE = np.dtype([("start", "i4"), ("end", "i4"), ("score", "f8"), ("probability", "f8")])


@dataclass(frozen=True, slots=True, eq=False)
class NBest(Sequence[dict[str, Any]]):
    """A question's n best answers, best first: reads as a list of dicts of text, start, end, score and probability.

    They are one array of numbers, and texts are cut out of the context when they are read: most of them never are, and
    20 dicts for every question of an evaluation take more time and memory than finding the answers. `list(n_best)` is
    for json.
    """

    context: str
    candidates: np.ndarray

    @property
    def text(self) -> list[str]:
        return [self.context[start:end] for start, end in zip(self.start, self.end, strict=True)]

    @property
    def start(self) -> list[int]:
        return self.candidates["start"].tolist()

    @property
    def end(self) -> list[int]:
        return self.candidates["end"].tolist()

    @property
    def score(self) -> list[float]:
        return self.candidates["score"].tolist()

    @property
    def probability(self) -> list[float]:
        return self.candidates["probability"].tolist()

    def __len__(self) -> int:
        return len(self.candidates)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, NBest) else NotImplemented

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._entry, self.candidates.tolist())

    @overload
    def __getitem__(self, i: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, i: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, i: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(i, slice):
            return list(map(self._entry, self.candidates[i].tolist()))
        return self._entry(self.candidates[i].item())

    def _entry(self, candidate: tuple[int, int, float, float]) -> dict[str, Any]:
        start, end, score, probability = candidate
        # "No answer" reaches from -1 to -1, which is the empty text.
        text = self.context[start:end]
        return {"text": text, "start": start, "end": end, "score": score, "probability": probability}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One question's answer; `text` is "" and `start` and `end` are -1 where the answer is "no answer".

    start, end: character offsets into the context, end exclusive.
    score: the best span's start logit + end logit, whether or not it is the answer (0 without any span).
    null_score: the smallest null score among the question's windows (0 without any window).
    probability: of the answer, by a softmax over the scores of `n_best` (0 without any).
    n_best: at most n_best entries, and with a null threshold always "no answer" (with text "") as well.
    """

    id: str
    text: str
    start: int
    end: int
    score: float
    null_score: float
    probability: float
    n_best: NBest


def best_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    context_mask: np.ndarray,
    n_best: int = 20,
    max_answer_length: int = 30,
    null_index: int = 0,
    windows: Sequence[int] | np.ndarray | None = None,
) -> Spans:
    """The `n_best` best spans of each window, exact over all pairs start <= end of context tokens at most
    `max_answer_length` tokens long; of equal scores the smallest start, then the shortest span, comes first.

    start_logits, end_logits: (W, L) floats; context_mask: (W, L) bool, true on the context's one run of tokens
    (of the logits elsewhere only the null token's are read). windows: (W,) indices, 0..W-1 by default.
    Raises ValueError, with the window's index, where a logit is NaN or +inf.

    A span's score can only be among the n best if the best score of its start is among the n best of all starts.
    The best end of every start is a sliding maximum, so only n_best x max_answer_length pairs are ever formed.
    """
    if n_best < 1 or max_answer_length < 1:
        raise ValueError(f"n_best ({n_best}) and max_answer_length ({max_answer_length}) must be at least 1")
    start_logits, end_logits, context_mask, numbers = _as_arrays(
        start_logits, end_logits, context_mask, windows
    )
    count, length = start_logits.shape
    null_score = start_logits[:, null_index] + end_logits[:, null_index]
    longest = min(max_answer_length, length)
    starts = np.where(context_mask, start_logits, _NONE)
    ends, best_end = _masked_ends(end_logits, context_mask, longest)
    with np.errstate(invalid="ignore"):
        best_of_start = starts + best_end
    # NaN and +inf pass through the maximum; -inf only masks.
    broken = ~((best_of_start.max(axis=1) < np.inf) & np.isfinite(null_score))
    if broken.any():
        raise ValueError(
            f"{broken.sum()} of {count} windows have logits that are NaN or infinite, "
            f"the first is window {numbers[np.argmax(broken)]}"
        )

    rows = np.arange(count)[:, None]
    first = largest(best_of_start, min(n_best, length))
    pairs = np.lib.stride_tricks.sliding_window_view(ends, longest, axis=1)[rows, first]
    pairs += starts[rows, first][:, :, None]
    pairs = pairs.reshape(count, first.shape[1] * longest)
    # The best spans of n_best starts are n_best spans already, so none that is worse than the last of them is needed.
    enough = first.shape[1] == n_best
    least = best_of_start[rows, first].min(axis=1, keepdims=True) if enough else _WORST
    chosen, found = ranked(pairs, np.maximum(least, _WORST), n_best)
    nth, further = np.divmod(chosen, longest)
    start = first[rows, nth]
    return Spans(
        score=np.where(found, pairs[rows, chosen], _NONE),
        start=np.where(found, start, 0).astype(np.int32),
        end=np.where(found, start + further, 0).astype(np.int32),
        null_score=null_score,
        window=numbers,
    )


def _as_arrays(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    context_mask: np.ndarray,
    windows: Sequence[int] | np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arguments of `best_spans` in the types that it computes with; ValueError where their shapes differ."""
    start_logits = np.asarray(start_logits, dtype=np.float32)
    end_logits = np.asarray(end_logits, dtype=np.float32)
    context_mask = np.asarray(context_mask, dtype=bool)
    if start_logits.ndim != 2 or not start_logits.shape == end_logits.shape == context_mask.shape:
        raise ValueError(
            "start_logits, end_logits and context_mask must share one shape (windows, length), not "
            f"{start_logits.shape}, {end_logits.shape} and {context_mask.shape}"
        )
    count = len(start_logits)
    numbers = np.arange(count) if windows is None else np.asarray(windows, dtype=np.int64)
    if numbers.shape != (count,):
        raise ValueError(f"{count} windows of logits came with {len(numbers)} window indices")
    return start_logits, end_logits, context_mask, numbers


def _masked_ends(
    end_logits: np.ndarray, context_mask: np.ndarray, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """(end logits with -inf outside the context, (W, L + longest - 1); for each start its best end logit, (W, L))."""
    count, length = end_logits.shape
    # Behind each row lies room for the longest span, so that the rows can be scanned as one line.
    width = length + longest - 1
    line = np.full(count * width + longest - 1, _NONE)
    ends = line[: count * width].reshape(count, width)
    np.copyto(ends[:, :length], end_logits, where=context_mask)
    return ends, _sliding_maximum(line, longest).reshape(count, width)[:, :length]


def no_spans(n_best: int) -> Spans:
    """The spans of no window."""
    tokens: np.ndarray = np.empty((0, n_best), dtype=np.int32)
    scores: np.ndarray = np.empty((0, n_best), dtype=np.float32)
    return Spans(scores, tokens, tokens, np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64))


def concatenate(spans: Sequence[Spans]) -> Spans:
    """The rows of several batches (all of one n_best) as one."""
    return Spans(
        **{
            name: np.concatenate([getattr(part, name) for part in spans])
            for name in ("score", "start", "end", "null_score", "window")
        }
    )


def decode(
    spans: Spans,
    offsets: Sequence[np.ndarray],
    example_index: np.ndarray,
    contexts: Sequence[str],
    ids: Sequence[str],
    n_best: int = 20,
    null_threshold: float | None = None,
) -> list[Prediction]:
    """One prediction per example, in the order of `ids`, from the spans of all its windows (in any order).

    offsets: for every window index an array (its length, 2) of character offsets; example_index: for every window
    index its example; contexts, ids: one per example.
    Without `null_threshold` a question always gets its best span (SQuAD v1.1); with it, the answer is "no answer" where
    null score - best score > `null_threshold`, and "no answer" competes in the n-best list (SQuAD v2.0).
    The rules are those of Hugging Face's `postprocess_qa_predictions`, except that a span found in several windows is
    listed once, with its best score; spans without characters are dropped; and a question without any span is answered
    "", not "empty".
    """
    row_example = np.asarray(example_index, dtype=np.int64)[spans.window]
    null_score: np.ndarray = np.full(len(ids), np.inf, dtype=np.float32)
    np.minimum.at(null_score, row_example, spans.null_score)
    null_score[np.isinf(null_score)] = 0

    example, score, place = _distinct_spans(spans, offsets, row_example)
    if null_threshold is not None:
        example = np.concatenate([example, np.arange(len(ids))])
        score = np.concatenate([score, null_score])
        place = np.concatenate([place, np.full(len(ids), _NOWHERE)])
    # A stable sort: of equal scores the first place comes first, and "no answer" last.
    order = np.argsort((example << 32) - ordered(score), kind="stable")
    example, score, place = example[order], score[order].astype(np.float64), place[order]
    rank = np.arange(len(example)) - group_bounds(example, len(ids))[example]
    # "No answer" and the best span are listed at any rank: the decision is between them.
    kept = (rank < n_best) | (place == _NOWHERE)
    kept[1:] |= (rank[1:] == 1) & (place[:-1] == _NOWHERE)
    example, score, place = example[kept], score[kept], place[kept]
    bounds = group_bounds(example, len(ids))
    weight = np.exp(score - score[bounds[example]])
    probability = weight / np.bincount(example, weight, minlength=len(ids))[example]

    candidates: np.ndarray = np.empty(len(score) + 1, dtype=_CANDIDATE)
    candidates["start"][:-1], candidates["end"][:-1] = place >> 32, (place & _LOW).astype(np.int32)
    candidates["score"][:-1], candidates["probability"][:-1] = score, probability
    candidates[-1] = -1, -1, 0, 0
    start, end, *figures = _answers(candidates, bounds, null_score.astype(np.float64), null_threshold)
    texts = [context[s:e] for context, s, e in zip(contexts, start, end, strict=True)]
    lists = [candidates[first:last] for first, last in pairwise(bounds.tolist())]
    return list(map(Prediction, ids, texts, start, end, *figures, map(NBest, contexts, lists)))


def _answers(
    candidates: np.ndarray, bounds: np.ndarray, null_score: np.ndarray, null_threshold: float | None
) -> list[list[Any]]:
    """Columns of Q questions: start, end, the best span's score, null score, the answer's probability.

    candidates: those of a question stand between its `bounds` (Q + 1,), best first; the very last one stands for those of
    a question that has none. null_score: (Q,).
    """
    begin, end = bounds[:-1], bounds[1:]
    nothing = len(candidates) - 1
    null = candidates["start"] < 0
    first = np.where(begin < end, begin, nothing)
    best = first + null[first]
    answered = best < end
    best = np.where(answered, best, nothing)
    score = candidates["score"][best]
    answer = np.where(answered, best, first)
    if null_threshold is not None:
        declined = answered & (null_score - score > null_threshold)
        # Each question has one "no answer".
        answer = np.where(declined, np.flatnonzero(null[:-1]), answer)
    chosen = candidates[answer]
    columns = (chosen["start"], chosen["end"], score, null_score, chosen["probability"])
    return [column.tolist() for column in columns]


def tempered(n_best: NBest, temperature: float) -> list[float]:
    """The probability of each candidate: a softmax over score / temperature. 1.0 gives `n_best.probability` as it is."""
    if temperature == 1.0 or not len(n_best):
        return n_best.probability
    score = np.array(n_best.score)
    weight = np.exp((score - score.max()) / temperature)
    return (weight / weight.sum()).tolist()


def tune_null_threshold(predictions: Sequence[Prediction], references: Sequence[Mapping[str, Any]]) -> float:
    """The `null_threshold` at which `predictions` have the highest F1 on `references` (dicts of id and answers).

    As `find_best_thresh` of the official v2.0 script, this sweeps over null score - best score, and moves questions of
    equal differences together. Of equally good differences, and 0, it takes the one nearest to 0: nothing changes without
    gain.
    """
    golds = {
        reference["id"]: (reference["answers"]["text"], reference.get("language")) for reference in references
    }
    known = [prediction for prediction in predictions if prediction.id in golds]
    if not known:
        return 0.0
    difference = np.array([prediction.null_score - prediction.score for prediction in known])

    def scores(answer: Callable[[Prediction], str]) -> np.ndarray:
        of_each = ((answer(prediction), *golds[prediction.id]) for prediction in known)
        return np.array([f1(text, truths, language=language) for text, truths, language in of_each])

    answered, declined = scores(_best_text), scores(lambda _: "")
    order = np.argsort(difference, kind="stable")
    difference = difference[order]
    totals = declined.sum() + np.concatenate([[0.0], np.cumsum((answered - declined)[order])])

    thresholds = np.concatenate([[np.nextafter(difference[0], -np.inf)], difference, [0.0]])
    total = totals[np.searchsorted(difference, thresholds, side="right")]
    good = thresholds[np.isclose(total, total.max(), rtol=0, atol=1e-9)]
    return float(good[np.argmin(np.abs(good))])


def _best_text(prediction: Prediction) -> str:
    return next((entry["text"] for entry in prediction.n_best if entry["start"] >= 0), "")


def _sliding_maximum(values: np.ndarray, width: int) -> np.ndarray:
    """Maximum of values[i : i + width] for every i with that many values left, by doubling: log2(width) passes."""
    reach = 1
    while reach * 2 <= width:
        values = np.maximum(values[:-reach], values[reach:])
        reach *= 2
    rest = width - reach
    return np.maximum(values[:-rest], values[rest:]) if rest else values


def _distinct_spans(
    spans: Spans, offsets: Sequence[np.ndarray], row_example: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat arrays of the distinct spans of all examples: example, best score, and place: begin << 32 | end.

    Of equal score in one example, the first place comes first.
    """
    order = np.argsort(row_example, kind="stable")
    example, score, window = row_example[order], spans.score[order], spans.window[order]
    # Where the first character of the first token and the last one of the last token stand in a window's offsets.
    places = np.stack([2 * spans.start, 2 * spans.end + 1], axis=1)[order].astype(np.intp)
    characters = [offsets[w].take(pair) for w, pair in zip(window.tolist(), places, strict=True)]
    begin, end = np.array(characters, dtype=np.int64).reshape(places.shape).swapaxes(0, 1)
    place = (begin << 32) | end
    real = (score > _NONE) & (begin < end)

    # A span can repeat in overlapping windows, and in one window where several tokens share their characters. Only
    # such examples need sorting: the spans of one window are in order already.
    several = np.bincount(example)[example] > 1
    sorted_place = np.sort(np.where(real, place, -1 - np.arange(place.shape[1])), axis=1)
    repeats = several | (sorted_place[:, 1:] == sorted_place[:, :-1]).any(axis=1)
    once, often = real & ~repeats[:, None], real & repeats[:, None]

    example = np.broadcast_to(example[:, None], score.shape)
    some_example, some_score, some_place = example[often], score[often], place[often]
    order = np.lexsort((-some_score, some_place, some_example))
    some_example, some_score, some_place = some_example[order], some_score[order], some_place[order]
    first: np.ndarray = np.ones(len(order), dtype=bool)
    first[1:] = (some_place[1:] != some_place[:-1]) | (some_example[1:] != some_example[:-1])
    return (
        np.concatenate([example[once], some_example[first]]),
        np.concatenate([score[once], some_score[first]]),
        np.concatenate([place[once], some_place[first]]),
    )
