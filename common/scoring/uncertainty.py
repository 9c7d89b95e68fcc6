"""Uncertainty of results over several seeds that share the same examples: intervals, tests, corrections for many tests."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .bootstrap import Scores, bootstrap_interval, paired_bootstrap


class Spread(NamedTuple):
    """How much the mean score differs from seed to seed."""

    variance: float
    freedom: int
    """Number of independent differences between seeds that the variance is estimated from."""


def spread_of(configurations: Sequence[np.ndarray]) -> Spread | None:
    """The spread between seeds, pooled over configurations (seeds, examples) each; None if none has several seeds.

    Three seeds of one configuration predict little about the fourth; the seeds of six configurations together predict much
    more, if seeds matter equally to all of them.
    """
    means = [_matrix(scores).mean(axis=1) for scores in configurations]
    freedom = sum(len(each) - 1 for each in means)
    return (
        Spread(float(sum(((each - each.mean()) ** 2).sum() for each in means) / freedom), freedom)
        if freedom
        else None
    )


def interval(
    scores: np.ndarray, spread: Spread | None = None, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval (low, high) of the mean of scores (seeds, examples), in their units, over other examples and other seeds.

    spread: pooled over similar configurations; by default the scores' own. The larger of both is used. One seed and no
    spread: the percentile bootstrap over examples, which leaves the seeds out. Else seeds and examples are crossed random
    effects, because each seed answers the same examples: mean squares give what each adds to the variance of the mean, each
    has a half-width by Student's t, and the half-widths are combined as a root of squares (MOVER; Zou and Donner, 2008).
    Resampling so few seeds would give intervals that are too narrow.
    """
    scores = _matrix(scores)
    spread = spread or spread_of([scores])
    if spread is None:
        return bootstrap_interval(scores[0], confidence=confidence)
    half = _half_width(_variances(scores, None, spread), spread, scores.shape[1], 1 - confidence)
    return float(scores.mean() - half), float(scores.mean() + half)


def paired_difference(a: np.ndarray, b: np.ndarray, spread: Spread | None = None) -> dict[str, float]:
    """How much higher the mean of `a` is than that of `b`: `difference`, `low` and `high` (95%), and a two-sided `p`.

    a, b: (seeds, examples), the same examples in the same order; ValueError otherwise. Methods as in `interval`; one
    seed and no spread: `bootstrap.paired_bootstrap`.
    """
    a, b = _matrix(a), _matrix(b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"Paired scores must be of the same examples, not of {a.shape[1]} and {b.shape[1]}")
    spread = spread or spread_of([a, b])
    if spread is None:
        return paired_bootstrap(a[0], b[0])
    difference, variances, examples = float(a.mean() - b.mean()), _variances(a, b, spread), a.shape[1]
    half = _half_width(variances, spread, examples, 0.05)
    # The smallest alpha, to six digits, whose interval excludes 0.
    below, p = 0.0, 1.0
    for _ in range(20 if difference else 0):
        middle = (below + p) / 2
        excluded = _half_width(variances, spread, examples, middle) < abs(difference)
        below, p = (below, middle) if excluded else (middle, p)
    return {"difference": difference, "low": difference - half, "high": difference + half, "p": p}


def holm(p: Scores) -> np.ndarray:
    """Adjusted p-values of a family of tests: the chance of any false positive below 0.05 is at most 0.05 (Holm, 1979).

    NaN stays NaN and does not count as a test.
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted, tested = values.copy(), np.flatnonzero(~np.isnan(values))
    highest = 0.0
    for rank, i in enumerate(tested[np.argsort(values[tested], kind="stable")]):
        highest = max(highest, min(1.0, (len(tested) - rank) * values[i]))
        adjusted[i] = highest
    return adjusted


def shown_p(value: float) -> str:
    """A p-value as text; "" for NaN."""
    return "" if np.isnan(value) else "< 0.001" if value < 0.0005 else f"{value:.3f}"


def range_of_samples(
    values: Scores, n: int, draws: int = 20_000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Bounds (low, high) of the mean of `n` examples in 95 of 100 samples, if examples score like `values`."""
    scores = np.asarray(values, dtype=np.float64)
    means = scores[np.random.default_rng(seed).integers(len(scores), size=(draws, n))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def share_misranked(better: Scores, worse: Scores, n: int, draws: int = 20_000, seed: int = 0) -> float:
    """Share of samples of `n` examples in which the model that is worse on all examples scores as high or higher."""
    differences = np.asarray(better, dtype=np.float64) - np.asarray(worse, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(differences), size=(draws, n))
    return float((differences[drawn].sum(axis=1) <= 1e-12).mean())


def _matrix(scores: Scores) -> np.ndarray:
    matrix = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"Scores must be (seeds, examples), not of shape {matrix.shape}")
    return matrix


def _variances(a: np.ndarray, b: np.ndarray | None, spread: Spread) -> tuple[float, float]:
    """What seeds and what examples add to the variance of the mean of `a`, or of its difference from the mean of `b`."""
    both = [a] if b is None else [a, b]
    of_seeds = sum(
        max(spread.variance, each.mean(axis=1).var(ddof=1) if len(each) > 1 else 0.0) / len(each)
        for each in both
    )
    examples = a.shape[1]
    if examples == 1:
        return float(of_seeds), 0.0
    by_example = a.mean(axis=0) - (0.0 if b is None else b.mean(axis=0))
    # The interaction of seeds and examples is part of the seeds' share already.
    of_both = sum(_left(each) / each.size for each in both)
    return float(of_seeds), float(max(0.0, by_example.var(ddof=1) / examples - of_both))


def _left(scores: np.ndarray) -> float:
    """Mean square of the residuals that neither seed nor example explains."""
    seeds, examples = scores.shape
    if seeds == 1:
        return 0.0
    left = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return float((left**2).sum() / ((seeds - 1) * (examples - 1)))


def _half_width(variances: tuple[float, float], spread: Spread, examples: int, alpha: float) -> float:
    from scipy.special import stdtrit

    of_seeds, of_examples = variances
    square = of_seeds * stdtrit(spread.freedom, 1 - alpha / 2) ** 2
    if of_examples:
        square += of_examples * stdtrit(examples - 1, 1 - alpha / 2) ** 2
    return float(np.sqrt(square))
