"""Points for each doubling of the data."""

import numpy as np
import pytest

from common.scoring.learning_curve import per_doubling
from common.scoring.uncertainty import interval


def test_a_straight_line_has_its_slope():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 10, 400)
    scores = [40 + 3 * k + noise for k in range(4)]
    found = per_doubling([100, 200, 400, 800], scores)
    assert found["slope"] == pytest.approx(3) and found["low"] == pytest.approx(3) == found["high"]


def test_two_sizes_give_their_difference_over_the_doublings_between_them():
    rng = np.random.default_rng(1)
    small, large = rng.random(300) * 50, rng.random(300) * 60
    found = per_doubling([100, 400], [small, large])
    assert found["slope"] == pytest.approx((large.mean() - small.mean()) / 2)
    assert (found["low"], found["high"]) == pytest.approx(interval((large - small) / 2))


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(2)
    base = rng.random((1, 300)) * 50
    seeds = rng.normal(0, 4, (3, 1))
    scores = [np.repeat(base, 3, axis=0), base + 5 + seeds]
    several = per_doubling([100, 200], scores)
    one = per_doubling([100, 200], [each[0] for each in scores])
    assert several["high"] - several["low"] > one["high"] - one["low"]


def test_one_size_or_an_unknown_one_has_no_slope():
    assert per_doubling([100, 100], [np.ones(5), np.ones(5)]) is None
    assert per_doubling([100], [np.ones(5)]) is None
    assert per_doubling([100, float("nan")], [np.ones(5), np.ones(5)]) is None
