"""What a test set can show: the smallest difference that it detects, and what would decide a tie."""

import math

import numpy as np

from .bootstrap import Scores

POWER = 0.8
"""Share of test sets on which a true difference of the smallest detectable size is found."""

ALPHA = 0.05
"""Two-sided level of the test that finds it."""


def smallest_difference(differences: Scores, power: float = POWER, alpha: float = ALPHA) -> float:
    """The smallest true mean difference that a two-sided test on as many examples finds with this power, in the units of
    `differences`.

    differences: (N,) the scores of one model minus the other's on the same examples. The usual (z_{1-alpha/2} + z_{power})
    standard errors, with Student's t in the place of z (Cohen, 1988).
    """
    values = _values(differences)
    error = math.sqrt(values.var(ddof=1) / len(values))
    return _factor(len(values) - 1, power, alpha) * error


def examples_to_decide(differences: Scores, power: float = POWER, alpha: float = ALPHA) -> float:
    """How many examples like these, in all, would show the observed mean difference with this power; inf where none would.

    Arguments as in `smallest_difference`.
    """
    values = _values(differences)
    allowed = (values.mean() / _factor(None, power, alpha)) ** 2
    variance = values.var(ddof=1)
    if allowed <= 0:
        return math.inf
    # Two examples more make up for Student's t (Guenther, 1981).
    return math.ceil(variance / allowed + 2) if variance else 2


def seeds_to_decide(
    differences: Scores, variance: float, power: float = POWER, alpha: float = ALPHA
) -> float:
    """How many seeds of each model would show the observed mean difference on these examples; inf where no number would.

    differences: (N,) means over the seeds at hand. variance: of the mean score between seeds of one model, for instance
    `uncertainty.spread_of`'s. The examples' part of the error stays, however many seeds there are.
    """
    values = _values(differences)
    allowed = (values.mean() / _factor(None, power, alpha)) ** 2 - values.var(ddof=1) / len(values)
    return math.inf if allowed <= 0 else max(1, math.ceil(2 * variance / allowed))


def _values(differences: Scores) -> np.ndarray:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"Power needs a list of two differences or more, not an array of shape {values.shape}"
        )
    return values


def _factor(freedom: int | None, power: float, alpha: float) -> float:
    """How many standard errors a difference must be; freedom: None for infinitely many degrees."""
    from scipy.special import ndtri, stdtrit

    if freedom is None:
        return float(ndtri(1 - alpha / 2) + ndtri(power))
    return float(stdtrit(freedom, 1 - alpha / 2) + stdtrit(freedom, power))
