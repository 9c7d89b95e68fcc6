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
    groups: Sequence[str] | None = None,
) -> list[Promise]:
    """For each allowed error the lowest threshold of GRID that can be promised with this confidence level.

    confidence: (N,) what the model gave to its answers, 0 to 1, by a rule in which the labels of these examples had no
    part; right: (N,) whether each answer is right. choices: how many models there were of which these labels chose this one.
    groups: (N,) what was drawn as a whole, such as the article of each question; None: every example was drawn by itself.

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
    confidently wrong answers being so few that testing begins behind them, may it be missed somewhat more often.) `choices`
    makes it exact for a model that these labels chose among so many, such as the epochs of a run (Bonferroni). What else the
    same labels chose, such as a threshold of "no answer" or the best of several runs, is not accounted for.

    Exact is the promise for independent examples. Groups make it approximate: examples of one group are wrong together more
    often than those of two, so they count for fewer (see `p_values`), and nothing is promised where the answers come from
    fewer groups than `needed` says, counted as `effective_groups` does. By simulation the promise then holds in at least
    `level` of the draws, for up to a correlation within groups of 0.2 and alpha from 0.02 to 0.2. R is the share over all
    examples of further groups like these.
    """
    confidence, wrong = np.asarray(confidence, dtype=np.float64), ~np.asarray(right, dtype=bool)
    delta = (1 - level) / choices
    grouped = groups is not None and len(set(groups)) < len(groups)
    answered, errors = _counts(confidence, wrong, groups if grouped else None)
    n, k = answered.sum(axis=1), errors.sum(axis=1)
    promises = []
    for alpha in max_errors:
        p = p_values(answered, errors, alpha, delta)
        enough = n >= max(needed(alpha, 1 - delta), FIRST * len(confidence))
        if grouped:
            enough &= effective_groups(answered) >= needed(alpha, level)
        # From the first that can be tested to the one before the first that is not rejected.
        begun: np.ndarray = np.maximum.accumulate(enough)
        stops = np.flatnonzero(begun & ~(enough & (p <= delta))).tolist()
        last = (stops[0] if stops else len(GRID)) - 1
        if last < 0 or not begun[last]:
            promises.append(Promise(alpha, None, 0, 0))
        else:
            promises.append(Promise(alpha, GRID[last], int(n[last]), int(k[last])))
    return promises


def _counts(
    confidence: np.ndarray, wrong: np.ndarray, groups: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """(answered, wrong answers) of each group at each threshold of GRID, (thresholds, groups) each; without groups one column."""
    thresholds: np.ndarray = -np.array(GRID)
    # The first threshold at which each example is answered.
    first = np.searchsorted(thresholds, -confidence, side="left")
    names: np.ndarray = np.zeros(1)
    group: np.ndarray = np.zeros(len(confidence), dtype=np.int64)
    if groups is not None:
        names, group = np.unique(np.array(groups), return_inverse=True)
    shape = (len(GRID), len(names))
    place = first * len(names) + group
    answered, errors = (
        np.bincount(place[part], minlength=shape[0] * shape[1]).reshape(shape).cumsum(axis=0)
        for part in (slice(None), wrong)
    )
    return answered, errors


def p_values(answered: np.ndarray, wrong: np.ndarray, alpha: float, delta: float) -> np.ndarray:
    """(...,) p-values of "more than a share alpha of the answers is wrong"; small ones, compared with delta, reject it.

    answered, wrong: (..., groups) counts. One group: independent answers, whose binomial p-value is exact. Otherwise the counts
    are divided by a design effect (Rao and Scott, 1992, "A simple method for the analysis of clustered binary data"): the
    variance of the share of wrong answers between groups, linearised, over that of independent answers. The estimate is
    replaced by its upper bound at level 1 - delta, as if it were a variance with chi-square distribution and
    `effective_groups` - 1 degrees of freedom; it is at least 1.
    """
    from scipy.special import betainc, chdtri

    n, k = answered.sum(axis=-1), wrong.sum(axis=-1)
    effect: Any = 1.0
    if answered.shape[-1] > 1:
        share = k / np.maximum(n, 1)
        around = ((wrong - share[..., None] * answered) ** 2).sum(axis=-1)
        alone = n * share * (1 - share)
        taken = np.count_nonzero(answered, axis=-1)
        freedom = np.maximum(effective_groups(answered), 2.0) - 1
        ratio = around / np.where(alone > 0, alone, 1.0) * taken / np.maximum(taken - 1, 1)
        effect = np.maximum(1.0, ratio * freedom / chdtri(freedom, 1 - delta))
    n, k = n / effect, k / effect
    # P(Binomial(n, alpha) <= k), for counts that need not be whole.
    return np.where(n > k, betainc(np.maximum(n - k, 1e-300), k + 1, 1 - alpha), 1.0)


def effective_groups(answered: np.ndarray) -> np.ndarray:
    """(...,) how many groups of equal size are worth as much (Kish, 1965): n² / sum of the groups' squares; 0 without any
    answer. answered: (..., groups) counts."""
    return answered.sum(axis=-1) ** 2 / np.maximum((answered**2).sum(axis=-1), 1)


def needed(max_error: float, level: float = CONFIDENCE) -> int:
    """How many answers, all of them right, it takes to promise this error: (1 - max_error)^n <= 1 - level.

    Of groups it takes as many: fewer, even without any error, would say nothing if each were right or wrong as a whole.
    """
    return math.ceil(math.log(1 - level) / math.log1p(-max_error) - 1e-9)


def applied(promise: Promise, confidence: np.ndarray, right: np.ndarray) -> tuple[int, int]:
    """(how many examples are answered, how many of these answers are wrong) on other data; (0, 0) without a threshold."""
    if promise.threshold is None:
        return 0, 0
    given = np.asarray(confidence) >= promise.threshold
    return int(given.sum()), int((given & ~np.asarray(right, dtype=bool)).sum())
