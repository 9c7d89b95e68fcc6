"""Certified abstention: what is promised holds in simulation, and what is stored is what the test says."""

import numpy as np
import pytest
from scipy.stats import beta, binom

from common.scoring import abstention

DRAWS = 2000


def _logistic(x):
    return 1 / (1 + np.exp(-x))


def overconfident(rng, n):
    """A model whose confidence is too high: the error falls as confidence rises."""
    confidence = _logistic(rng.normal(1.5, 2, n))
    return confidence, rng.random(n) < 0.45 + 0.52 * confidence


def sure_and_wrong(rng, n):
    """A model that is often wrong where it is most confident, so that no threshold is safe above."""
    confidence = _logistic(rng.normal(1.5, 1.5, n))
    odd = rng.random(n) < 0.02
    confidence = np.where(odd, 0.9999, confidence)
    return confidence, rng.random(n) < np.where(odd, 0.5, 0.97)


def no_order(rng, n):
    """A model whose confidence says nothing, and whose error lies just above what is allowed."""
    return rng.random(n), rng.random(n) < 0.895


def true_errors(draw, thresholds):
    """Threshold → share of wrong answers at or above it, over a million examples."""
    confidence, right = draw(np.random.default_rng(99), 1_000_000)
    order = np.argsort(-confidence)
    wrong = np.concatenate([[0], np.cumsum(~right[order])])
    n = np.searchsorted(-confidence[order], -np.array(thresholds), side="right")
    return dict(zip(thresholds, wrong[n] / np.maximum(n, 1), strict=True))


@pytest.mark.parametrize("draw", [overconfident, sure_and_wrong, no_order])
def test_the_promise_holds_in_95_of_100_draws(draw):
    truth, rng = true_errors(draw, abstention.GRID), np.random.default_rng(0)
    broken = found = 0
    for _ in range(DRAWS):
        (promise,) = abstention.certify(*draw(rng, 400), max_errors=[0.1])
        if promise.threshold is not None:
            found += 1
            broken += truth[promise.threshold] > 0.1
    assert broken <= 0.05 * DRAWS
    # It is no promise that is never made.
    assert found > (0.01 if draw is no_order else 0.2) * DRAWS


def test_a_naive_threshold_does_not_keep_it():
    """The lowest threshold at which the error on validation itself is allowed."""
    truth, rng = true_errors(overconfident, abstention.GRID), np.random.default_rng(0)
    broken = 0
    for _ in range(DRAWS):
        confidence, right = overconfident(rng, 400)
        given = confidence >= np.array(abstention.GRID)[:, None]
        measured = (given & ~right).sum(1) / np.maximum(given.sum(1), 1)
        allowed = [
            t
            for t, error, n in zip(abstention.GRID, measured, given.sum(1), strict=True)
            if n and error <= 0.1
        ]
        broken += bool(allowed) and truth[allowed[-1]] > 0.1
    assert broken > 0.3 * DRAWS


def test_labels_that_chose_among_models_count():
    """The best of five equally good models by the same labels: without `choices` the promise is missed too often."""
    broken = {1: 0, 5: 0}
    rng = np.random.default_rng(1)
    for _ in range(DRAWS):
        # Nothing to order by, error 0.2 in truth: every threshold found for less is a broken promise.
        right = rng.random((5, 100)) < 0.8
        best = right[right.sum(1).argmax()]
        for choices in broken:
            (promise,) = abstention.certify(np.ones(100), best, [0.199], choices=choices)
            broken[choices] += promise.threshold is not None
    assert broken[1] > 0.1 * DRAWS
    assert broken[5] <= 0.05 * DRAWS


def test_the_threshold_is_where_the_bound_of_clopper_and_pearson_stays_below():
    confidence, right = overconfident(np.random.default_rng(3), 1500)
    promises = abstention.certify(confidence, right)
    assert [p.max_error for p in promises] == list(abstention.MAX_ERRORS)
    made = [p for p in promises if p.threshold is not None]
    assert {p.max_error for p in made} >= {0.1, 0.2}
    for p in made:
        n, wrong = abstention.applied(p, confidence, right)
        assert (p.answered, p.wrong) == (n, wrong)
        assert binom.cdf(wrong, n, p.max_error) <= 0.05
        assert abstention.upper_bound(wrong, n) <= p.max_error
        after = abstention.GRID[abstention.GRID.index(p.threshold) + 1] if p.threshold else None
        if after is not None:
            given = confidence >= after
            assert binom.cdf((given & ~right).sum(), given.sum(), p.max_error) > 0.05


def test_too_few_examples_promise_nothing():
    assert [abstention.needed(alpha) for alpha in (0.01, 0.05, 0.1, 0.2)] == [299, 59, 29, 14]
    for n, promised in ((28, None), (29, 0.0)):
        (promise,) = abstention.certify(np.full(n, 0.5), np.ones(n), [0.1])
        assert promise.threshold == promised
    (promise,) = abstention.certify(np.zeros(0), np.zeros(0), [0.1])
    assert promise == abstention.Promise(0.1, None, 0, 0)


def test_all_wrong_and_all_right():
    n = 500
    confidence = np.linspace(0, 1, n)
    assert all(p.threshold is None for p in abstention.certify(confidence, np.zeros(n)))
    # Everything is answered, for every error that so many can promise.
    thresholds = [p.threshold for p in abstention.certify(confidence, np.ones(n))]
    assert thresholds == [0.0] * 5


def test_the_upper_bound():
    assert abstention.upper_bound(0, 0) == abstention.upper_bound(5, 5) == 1.0
    assert abstention.upper_bound(3, 100) == pytest.approx(beta.ppf(0.95, 4, 97))
    assert abstention.upper_bound(0, 29) < 0.1 < abstention.upper_bound(0, 28)


def test_a_promise_without_a_threshold_answers_nothing_elsewhere():
    nothing = abstention.Promise(0.1, None, 0, 0)
    assert abstention.applied(nothing, np.ones(3), np.ones(3)) == (0, 0)
    half = abstention.Promise(0.1, 0.5, 0, 0)
    assert abstention.applied(half, np.array([0.4, 0.5, 0.6]), np.array([1, 0, 1])) == (2, 1)
