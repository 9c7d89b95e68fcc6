"""A confusion matrix and what is read off it: accuracy, F1 and its interval, a row of figures for each class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_CELLS_AT_ONCE = 2_000_000
"""Cells of resampled matrices that are drawn at once."""


def confusion_matrix(labels: Sequence[int], predictions: Sequence[int], classes: int) -> np.ndarray:
    """(classes, classes) counts; rows are what the labels say, columns what was predicted."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)), 1)
    return counts


def accuracy(counts: np.ndarray) -> Any:
    """Share of right predictions, 0 to 1; counts: (..., classes, classes)."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1))


def f1(counts: np.ndarray) -> Any:
    """F1 of class 1, 0 to 1; counts: (..., 2, 2). 0 where the class is neither labelled nor predicted."""
    right, either = _right_and_either(counts)
    return (2 * right / np.maximum(either, 1))[..., 1]


def f1_macro(counts: np.ndarray) -> Any:
    """The mean F1 of the classes, 0 to 1; counts: (..., classes, classes).

    A class that is neither labelled nor predicted does not count, as in scikit-learn.
    """
    return mean_f1(*_right_and_either(counts))


def mean_f1(right: np.ndarray, either: np.ndarray) -> Any:
    """The mean of 2 · right / either over the classes, (...,), without those whose `either` is 0; both: (..., classes)."""
    each = 2 * right / np.maximum(either, 1)
    return each.sum(axis=-1) / np.maximum((either > 0).sum(axis=-1), 1)


def f1_interval(
    counts: np.ndarray, n: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of `f1` over examples (Efron, 1979).

    F1 depends on the counts alone, and resampled examples have multinomial counts.
    """
    total = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(total, counts.ravel() / total, size=n)
    return _percentiles(f1(drawn.reshape(n, *counts.shape)), confidence)


def f1_macro_interval(
    counts: np.ndarray, n: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of `f1_macro` over examples, as `f1_interval`.

    Only cells that occur are drawn: a million cells of a thousand classes hold a few thousand counts at most.
    """
    from scipy.sparse import csr_array

    classes, (rows, columns) = len(counts), np.nonzero(counts)
    held, cells = counts[rows, columns], np.arange(len(rows))
    shape = (classes, len(cells))
    right = csr_array(((rows == columns).astype(np.int64), (rows, cells)), shape)
    ones = np.ones(2 * len(cells), dtype=np.int64)
    # A cell on the diagonal is counted twice: as labelled and as predicted.
    either = csr_array((ones, (np.concatenate([rows, columns]), np.tile(cells, 2))), shape)
    rng, found = np.random.default_rng(seed), []
    at_once = max(1, _CELLS_AT_ONCE // max(len(cells), classes))
    for done in range(0, n, at_once):
        drawn = rng.multinomial(held.sum(), held / held.sum(), size=min(at_once, n - done)).T
        found.append(mean_f1((right @ drawn).T, (either @ drawn).T))
    return _percentiles(np.concatenate(found), confidence)


def rows_of_classes(counts: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """For each class `label`, `precision`, `recall`, `f1` (0 to 1; None where nothing is divided by), `support` and `predicted`.

    support: texts with the label; predicted: texts that were given it.
    """
    right, support, predicted = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    return figures_of_labels(right, support, predicted, names)


def figures_of_labels(
    right: np.ndarray, support: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of `rows_of_classes`, from how often each label was rightly given, is labelled and was given: (classes,) each."""

    def ratio(part: int, whole: int) -> float | None:
        return round(part / whole, 6) if whole else None

    return [
        {
            "label": name,
            "precision": ratio(hit, given),
            "recall": ratio(hit, held),
            "f1": ratio(2 * hit, held + given),
            "support": held,
            "predicted": given,
        }
        for name, hit, held, given in zip(
            names, right.tolist(), support.tolist(), predicted.tolist(), strict=True
        )
    ]


def _right_and_either(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(right predictions of each class, how often it is labelled plus how often it is predicted)."""
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1) + counts.sum(axis=-2)


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)
