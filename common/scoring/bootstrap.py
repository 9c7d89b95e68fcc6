"""Intervals and tests of mean scores by resampling examples, with no assumption about their distribution."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Scores = Sequence[float] | np.ndarray


def bootstrap_interval(
    values: Scores, n: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean, in the units of `values` (Efron, 1979)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(_resampled_means(values, n, seed), (tail, 1 - tail))
    return float(low), float(high)


def interval_of_sums(
    counts: "np.ndarray | csr_array",
    statistic: Callable[[np.ndarray], np.ndarray],
    n: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of what is computed from sums over examples, such as micro- and macro-F1.

    Such a score is no mean over examples: examples are resampled, and it is computed again from the sums of each sample.
    counts: (examples, k), may be sparse. statistic: sums (samples, k) → (samples,).
    """
    examples, k = counts.shape
    if not examples:
        raise ValueError("Resampling needs at least one example")
    rng, found = np.random.default_rng(seed), []
    across = counts.T
    at_once = max(1, 4_000_000 // max(examples, k))
    for done in range(0, n, at_once):
        drawn = rng.integers(examples, size=(min(at_once, n - done), examples))
        times = np.stack([np.bincount(sample, minlength=examples) for sample in drawn], axis=1)
        found.append(statistic(np.asarray((across @ times).T)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(found), (tail, 1 - tail))
    return float(low), float(high)


def paired_bootstrap(
    a: Scores, b: Scores, n: int = 2000, seed: int = 0, confidence: float = 0.95
) -> dict[str, float]:
    """How much higher the mean of `a` is than the mean of `b`; both are scores of the same examples in the same order.

    `difference`, its percentile bootstrap interval `low` and `high`, and `p`, two-sided: twice the share of resamples
    in which the difference is 0 or changes sign, counting the sample itself, so that it is never 0.
    """
    one, other = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if one.shape != other.shape:
        raise ValueError(f"Paired scores must be of the same examples, not of {one.shape} and {other.shape}")
    means = _resampled_means(one - other, n, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    smaller = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return {
        "difference": float((one - other).mean()),
        "low": float(low),
        "high": float(high),
        "p": min(1.0, 2 * (smaller + 1) / (n + 1)),
    }


def _resampled_means(values: Scores, n: int, seed: int) -> np.ndarray:
    """(n,) means of as many examples as there are, drawn with replacement."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(
            f"Resampling needs a list of at least one score, not an array of shape {scores.shape}"
        )
    rng = np.random.default_rng(seed)
    at_once = max(1, 4_000_000 // len(scores))
    return np.concatenate(
        [
            scores[rng.integers(len(scores), size=(min(at_once, n - done), len(scores)))].mean(axis=1)
            for done in range(0, n, at_once)
        ]
    )
