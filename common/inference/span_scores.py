"""Scores of spans as probabilities over a whole context: P(first token) times P(last token).

transformers' pipeline took these softmaxes over each window by itself, so that the spans of different windows could not be
compared: in a window without an answer some span is always likely. Here they go over the places of a context, whatever
windows hold them. Without tokens that share their characters, a context of one window has the same scores by both.
"""

from collections.abc import Iterable

import numpy as np
import torch

from ..tasks.batching import Collator, length_sorted_batches
from ..tasks.extractive_qa.prediction import window_logits
from ..tasks.extractive_qa.spans import NBest, Spans, best_spans, concatenate, no_spans
from ..tasks.extractive_qa.windows import NO_CONTEXT, Windows


@torch.inference_mode()
def predict(
    model: torch.nn.Module,
    windows: Windows,
    collator: Collator,
    *,
    examples: int,
    n_best: int,
    max_answer_length: int,
    batch_size: int | None = None,
) -> tuple[Spans, np.ndarray]:
    """(the candidates of every window, as `predict_spans` finds them; (E,) the logarithm of what exp(start logit + end logit)
    is divided by in each of the E examples).

    batch_size: windows that are computed at once; None: as many as the device is fastest with.
    """
    spans = [no_spans(n_best)]
    nulls: np.ndarray = np.zeros((len(windows), 2))
    places: list[np.ndarray] = [np.zeros((0, 2), dtype=np.int64)]
    scores: list[np.ndarray] = [np.zeros((0, 2))]

    def batches(tokens: int) -> Iterable[np.ndarray]:
        return _batches(windows.lengths, tokens, batch_size)

    for indices, starts, ends, in_context in window_logits(model, windows, collator, batches):
        spans.append(
            best_spans(
                starts,
                ends,
                in_context,
                n_best=n_best,
                max_answer_length=max_answer_length,
                windows=indices,
            )
        )
        nulls[indices] = np.stack([starts[:, 0], ends[:, 0]], axis=1)
        rows, _ = np.nonzero(in_context)
        characters = np.concatenate([windows.offsets[i] for i in indices])
        characters = characters[characters[:, 1] != NO_CONTEXT].astype(np.int64)
        places.append((windows.example_index[indices][rows, None] << 32) | characters)
        scores.append(np.stack([starts[in_context], ends[in_context]], axis=1))
    return concatenate(spans), _totals(
        np.concatenate(places), np.concatenate(scores), _least(nulls, windows.example_index, examples)
    )


def _batches(lengths: np.ndarray, tokens: int, batch_size: int | None) -> Iterable[np.ndarray]:
    if batch_size is None:
        return length_sorted_batches(lengths, tokens)
    order = np.argsort(-lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def _least(nulls: np.ndarray, example_index: np.ndarray, examples: int) -> np.ndarray:
    """(E, 2) the null token's logits in the window that is surest of an answer, as decoding takes them; nulls: (W, 2)."""
    found: np.ndarray = np.full((examples, 2), -np.inf)
    order = np.lexsort((nulls.sum(axis=1), example_index))
    present, first = np.unique(example_index[order], return_index=True)
    found[present] = nulls[order[first]]
    return found


def _totals(places: np.ndarray, scores: np.ndarray, nulls: np.ndarray) -> np.ndarray:
    """(E,) the sum, over first and last tokens, of log sum exp over the places of an example and "no answer".

    places: (T, 2) example << 32 | first and last character of each token of each window; scores: (T, 2) its logits. A place
    that several windows hold counts once, with its best logit.
    """
    summed = nulls.copy()
    for column in range(2):
        distinct, which = np.unique(places[:, column], return_inverse=True)
        best: np.ndarray = np.full(len(distinct), -np.inf)
        np.maximum.at(best, which, scores[:, column])
        np.logaddexp.at(summed[:, column], distinct >> 32, best)
    return summed.sum(axis=1)


def scored(n_best: NBest, total: float) -> list[tuple[int, int, float]]:
    """(start, end, probability) of each candidate of a question; -1 to -1 is "no answer"."""
    # Logits are added up in float32: a certain answer must not become more than certain.
    scores = np.exp(np.minimum(np.array(n_best.score, dtype=np.float64) - total, 0.0)).tolist()
    return list(zip(n_best.start, n_best.end, scores, strict=True))
