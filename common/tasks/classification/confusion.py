"""A confusion matrix and what is read off it: accuracy, F1 and its interval."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def confusion_matrix(labels: Sequence[int], predictions: Sequence[int], classes: int) -> np.ndarray:
    """(classes, classes) counts; rows are what the labels say, columns what was predicted."""
    counts: np.ndarray = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)), 1)
    return counts


def accuracy(counts: np.ndarray) -> Any:
    """Share of right predictions, 0 to 1; counts: (..., classes, classes)."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1))


def f1(counts: np.ndarray) -> np.ndarray:
    """F1, 0 to 1, of class 1 where there are two classes, else the mean over the classes; counts: (..., classes, classes).

    A class that is neither labelled nor predicted scores 0.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    either = counts.sum(axis=-1) + counts.sum(axis=-2)
    each = 2 * right / np.maximum(either, 1)
    return each[..., 1] if counts.shape[-1] == 2 else each.mean(axis=-1)


def f1_interval(
    counts: np.ndarray, n: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of `f1` over examples (Efron, 1979).

    F1 depends on the counts alone, and resampled examples have multinomial counts.
    """
    total = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(total, counts.ravel() / total, size=n)
    tail = (1 - confidence) / 2
    low, high = np.quantile(f1(drawn.reshape(n, *counts.shape)), (tail, 1 - tail))
    return float(low), float(high)
