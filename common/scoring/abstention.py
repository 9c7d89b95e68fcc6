"""Certified abstention: below which confidence a model should not answer, so that its answers are wrong at most so often."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_ERRORS = (0.01, 0.02, 0.05, 0.10, 0.20)
"""The allowed shares of wrong answers (alpha) that a threshold is looked for."""

CONFIDENCE = 0.95
"""With which each promise is to hold."""

GRID = (*(1 / (1 + np.exp(-np.arange(14.0, -6.05, -0.1)))).tolist(), 0.0)
"""The thresholds that are tested, from the most cautious down to 0, which answers everything: steps of 0.1 in log odds.
They are part of the method: no data chooses them."""

FIRST = 0.25
"""Share of the certifying examples that lie above the first threshold that is tested. Smaller shares let a single error among
the most confident answers end the test; larger ones reach no error that only few answers keep."""


@dataclass(frozen=True)
class Promise:
    """What can be said of an allowed error."""

    max_error: float
    """The share of wrong answers that is allowed."""
    threshold: float | None
    """Answers of at least this confidence are given; None where no threshold can be promised."""
    answered: int
    """Examples of the certifying data at or above the threshold; 0 without one."""
    wrong: int
    """How many of these are wrong."""


def certify(
    confidence: np.ndarray,
    right: np.ndarray,
    max_errors: Sequence[float] = MAX_ERRORS,
    level: float = CONFIDENCE,
    choices: int = 1,
) -> list[Promise]:
    """For each allowed error the lowest threshold of GRID that can be promised with this confidence level.

    confidence: (N,) what the model gave to its answers, 0 to 1, by a rule in which the labels of these examples had no
    part; right: (N,) whether each answer is right. choices: how many models there were of which these labels chose this one.

    The method is Learn then Test (Angelopoulos et al., 2021, "Learn then Test: Calibrating Predictive Algorithms to
    Achieve Risk Control") with fixed-sequence testing. For threshold t let R(t) be the share of wrong answers among the
    answered ones, P(wrong | confidence >= t), over all examples of the kind that the N were drawn from. The hypothesis
    "R(t) > alpha" has the exact binomial p-value P(Binomial(n, alpha) <= k), where k of n answered examples are wrong: given
    n, k is binomial with R(t). (That p is at most delta says that the one-sided bound of Clopper and Pearson (1934) is at
    most alpha.) Thresholds are tested in the order of GRID at delta = (1 - level) / choices each; the first one that is
    not rejected ends the sequence, and the last rejected one is promised. Testing begins where n first is FIRST of N, and
    large enough for a rejection (see `needed`): this looks at the confidences alone, never at the labels.

    What is promised: if the N examples and later ones are drawn independently from one distribution, then in at least
    `level` of all draws of the N examples R(threshold) <= alpha (or there is no threshold). It is a promise for the whole
    stream of later questions, not for one of its questions, nor for one kind of them; for each alpha by itself; and for no
    other distribution. It holds for a fixed model, whatever the distribution, where testing begins before the first
    threshold with R > alpha; and wherever it begins if the error does not fall as confidence falls. (Only if both fail,
    confidently wrong answers being so few that testing begins behind them, may it be missed somewhat more often.) `choices` makes it exact for a model that these labels chose among so
    many, such as the epochs of a run (Bonferroni). What else the same labels chose, such as a threshold of "no answer" or
    the best of several runs, is not accounted for.
    """
    from scipy.stats import binom

    confidence, wrong = np.asarray(confidence, dtype=np.float64), ~np.asarray(right, dtype=bool)
    order = np.argsort(-confidence, kind="stable")
    errors: np.ndarray = np.concatenate([[0], np.cumsum(wrong[order])])
    thresholds: np.ndarray = -np.array(GRID)
    answered: Any = np.searchsorted(-confidence[order], thresholds, side="right")
    delta = (1 - level) / choices
    promises = []
    for alpha in max_errors:
        p = binom.cdf(errors[answered], answered, alpha)
        testable = answered >= max(needed(alpha, 1 - delta), FIRST * len(confidence))
        # From the first that can be tested to the one before the first that is not rejected.
        stops = np.flatnonzero(testable & (p > delta)).tolist()
        last = (stops[0] if stops else len(GRID)) - 1
        if last < 0 or not testable[last]:
            promises.append(Promise(alpha, None, 0, 0))
        else:
            n = int(answered[last])
            promises.append(Promise(alpha, GRID[last], n, int(errors[n])))
    return promises


def needed(max_error: float, level: float = CONFIDENCE) -> int:
    """How many answers, all of them right, it takes to promise this error: (1 - max_error)^n <= 1 - level."""
    return math.ceil(math.log(1 - level) / math.log1p(-max_error) - 1e-9)


def upper_bound(wrong: int, answered: int, level: float = CONFIDENCE) -> float:
    """One-sided upper bound of the share of wrong answers (Clopper and Pearson, 1934); 1.0 where nothing was answered."""
    from scipy.stats import beta

    return 1.0 if wrong >= answered else float(beta.ppf(level, wrong + 1, answered - wrong))


def applied(promise: Promise, confidence: np.ndarray, right: np.ndarray) -> tuple[int, int]:
    """(how many examples are answered, how many of these answers are wrong) on other data; (0, 0) without a threshold."""
    if promise.threshold is None:
        return 0, 0
    given = np.asarray(confidence) >= promise.threshold
    return int(given.sum()), int((given & ~np.asarray(right, dtype=bool)).sum())
