"""Intervals and tests of mean scores by resampling examples, with no assumption about their distribution."""

from collections.abc import Sequence

import numpy as np


def bootstrap_interval(
    values: Sequence[float], n: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean, in the units of `values` (Efron, 1979)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(_resampled_means(values, n, seed), (tail, 1 - tail))
    return float(low), float(high)


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], n: int = 2000, seed: int = 0, confidence: float = 0.95
) -> dict[str, float]:
    """How much higher the mean of `a` is than that of `b`, scores of the same examples in the same order.

    `difference`, its percentile bootstrap interval `low` and `high`, and `p`, two-sided: twice the share of resamples
    in which the difference vanishes or changes sign, counting the sample itself, so that it is never 0.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"Paired scores must be of the same examples, not of {a.shape} and {b.shape}")
    means = _resampled_means(a - b, n, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    smaller = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return {
        "difference": float((a - b).mean()),
        "low": float(low),
        "high": float(high),
        "p": min(1.0, 2 * (smaller + 1) / (n + 1)),
    }


def _resampled_means(values: Sequence[float], n: int, seed: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"Resampling needs a list of at least one score, not an array of shape {values.shape}"
        )
    rng = np.random.default_rng(seed)
    at_once = max(1, 4_000_000 // len(values))
    return np.concatenate(
        [
            values[rng.integers(len(values), size=(min(at_once, n - done), len(values)))].mean(axis=1)
            for done in range(0, n, at_once)
        ]
    )
