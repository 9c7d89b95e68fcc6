"""How sure a figure is that rests on several seeds and on the same examples for each: intervals, tests, corrections."""

from collections.abc import Sequence

import numpy as np

from .metrics import bootstrap_interval, paired_bootstrap


def interval(scores: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Interval (low, high) of the mean of scores (seeds, examples), in their units, over other examples and other seeds.

    One seed: the percentile bootstrap over examples, which leaves the spread between seeds out. Several: both are
    random effects that cross, for each seed answers the same examples. Mean squares tell what seeds and what examples
    add to the variance of the mean; each by itself has an interval by Student's t, with the degrees of freedom of as
    many seeds or examples, and their half-widths are joined as a root of squares (MOVER; Zou and Donner, 2008). It
    covers at least as often as it says down to two seeds; resampling so few would give intervals that are too narrow.
    """
    scores = _matrix(scores)
    if len(scores) == 1:
        return bootstrap_interval(scores[0], confidence=confidence)
    mean, half = scores.mean(), _half_width(scores, 1 - confidence)
    return float(mean - half), float(mean + half)


def paired_difference(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """How much higher the mean of `a` is than that of `b`: `difference`, `low` and `high` (95%), and a two-sided `p`.

    a, b: (seeds, examples), the same seeds and examples in the same order. One seed: `metrics.paired_bootstrap`.
    Several: the method of `interval`, on the differences. ValueError where the shapes differ.
    """
    a, b = _matrix(a), _matrix(b)
    if a.shape != b.shape:
        raise ValueError(
            f"Paired scores must be of the same seeds and examples, not of {a.shape} and {b.shape}"
        )
    if len(a) == 1:
        return paired_bootstrap(a[0], b[0])
    difference = a - b
    mean, half = float(difference.mean()), _half_width(difference, 0.05)
    return {"difference": mean, "low": mean - half, "high": mean + half, "p": _p(difference)}


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values of one family of tests, so that all that are below 0.05 together err in one case of twenty (Holm, 1979).

    NaN stays NaN and does not count as a test.
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted, tested = p.copy(), np.flatnonzero(~np.isnan(p))
    highest = 0.0
    for rank, i in enumerate(tested[np.argsort(p[tested], kind="stable")]):
        highest = max(highest, min(1.0, (len(tested) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted


def range_of_samples(
    values: Sequence[float], n: int, draws: int = 20_000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Between which bounds the mean of `n` examples lies in 95 of 100 cases, where examples score like `values`."""
    values = np.asarray(values, dtype=np.float64)
    means = values[np.random.default_rng(seed).integers(len(values), size=(draws, n))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def share_misranked(
    better: Sequence[float], worse: Sequence[float], n: int, draws: int = 20_000, seed: int = 0
) -> float:
    """In which share of samples of `n` examples the one that is worse on all of them scores as high or higher."""
    differences = np.asarray(better, dtype=np.float64) - np.asarray(worse, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(differences), size=(draws, n))
    return float((differences[drawn].sum(axis=1) <= 1e-12).mean())


def _matrix(scores) -> np.ndarray:
    scores = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"Scores must be (seeds, examples), not of shape {scores.shape}")
    return scores


def _half_width(scores: np.ndarray, alpha: float) -> float:
    from scipy.special import stdtrit

    seeds, examples = scores.shape
    of_seeds, of_examples = _variances(scores)
    tail = 1 - alpha / 2
    squares = of_seeds * stdtrit(seeds - 1, tail) ** 2
    if of_examples:
        squares += of_examples * stdtrit(examples - 1, tail) ** 2
    return float(np.sqrt(squares))


def _variances(scores: np.ndarray) -> tuple[float, float]:
    """What seeds (with what is left) and examples add to the variance of the mean of all scores."""
    seeds, examples = scores.shape
    by_seed, by_example = scores.mean(axis=1), scores.mean(axis=0)
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    if examples == 1:
        return of_seeds, 0.0
    left = scores - by_seed[:, None] - by_example + scores.mean()
    square_left = (left**2).sum() / ((seeds - 1) * (examples - 1))
    square_examples = seeds * by_example.var(ddof=1)
    return of_seeds, float(max(0.0, square_examples - square_left)) / scores.size


def _p(difference: np.ndarray) -> float:
    """The smallest alpha, to six digits, whose interval leaves 0 out."""
    mean = abs(difference.mean())
    if mean == 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if _half_width(difference, middle) < mean else (middle, high)
    return high
