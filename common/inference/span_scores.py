"""Scores of spans as probabilities over a whole context: P(first token) times P(last token).

transformers' pipeline took these softmaxes over each window by itself, so that the spans of different windows could not be
compared: in a window without an answer some span is always likely. Here they go over all windows of a context at once. A
context of one window has the same scores by both.
"""

from collections.abc import Iterable

import numpy as np
import torch

from ..tasks.batching import Collator, length_sorted_batches
from ..tasks.extractive_qa.prediction import window_logits
from ..tasks.extractive_qa.spans import NBest, Spans, best_spans, concatenate, no_spans
from ..tasks.extractive_qa.windows import Windows


@torch.inference_mode()
def predict(
    model: torch.nn.Module,
    windows: Windows,
    collator: Collator,
    *,
    n_best: int,
    max_answer_length: int,
    batch_size: int | None = None,
) -> tuple[Spans, np.ndarray]:
    """(the candidates of every window, as `predict_spans` finds them; (W, 2) the logarithm of the sum of exp(logit) over the
    null token and the context's tokens, for first and last tokens).

    batch_size: windows that are computed at once; None: as many as the device is fastest with.
    """
    spans, masses = [no_spans(n_best)], np.full((len(windows), 2), -np.inf)

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
        in_context[:, 0] = True
        for column, logits in enumerate((starts, ends)):
            masked = np.where(in_context, logits.astype(np.float64), -np.inf)
            masses[indices, column] = np.logaddexp.reduce(masked, axis=1)
    return concatenate(spans), masses


def _batches(lengths: np.ndarray, tokens: int, batch_size: int | None) -> Iterable[np.ndarray]:
    if batch_size is None:
        return length_sorted_batches(lengths, tokens)
    order = np.argsort(-lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def totals(masses: np.ndarray, example_index: np.ndarray, examples: int) -> np.ndarray:
    """(E,) the logarithm of what exp(start logit + end logit) is divided by in each example.

    masses: (W, 2) as `predict` gives them; example_index: (W,) the example of each window.
    """
    summed: np.ndarray = np.full((examples, 2), -np.inf)
    np.logaddexp.at(summed, example_index, masses)
    return summed.sum(axis=1)


def scored(n_best: NBest, total: float) -> list[tuple[int, int, float]]:
    """(start, end, probability) of each candidate of a question; -1 to -1 is "no answer"."""
    scores = np.exp(np.array(n_best.score, dtype=np.float64) - total).tolist()
    return list(zip(n_best.start, n_best.end, scores, strict=True))
