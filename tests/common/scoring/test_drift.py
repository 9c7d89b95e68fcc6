"""Distances of two samples: by hand, with bounds that hold and tests that keep their level."""

import numpy as np
import pytest

from common.scoring.drift import of_categories, of_numbers


def test_the_distance_of_numbers_by_hand():
    # Below 3 lie all of one sample and a quarter of the other.
    found = of_numbers([1, 1, 2, 2], [1, 3, 4, 5])
    assert found.value == pytest.approx(0.75) and found.low == 0.0 and found.high == 1.0


def test_the_distance_of_categories_by_hand():
    found = of_categories(["a"] * 3 + ["b"], ["a", "b", "b", "c"])
    # Half of |3/4 - 1/4| + |1/4 - 2/4| + |0 - 1/4|.
    assert found.value == pytest.approx(0.5) and found.p > 0.05


def test_the_stability_index_by_hand():
    found = of_categories(["a"] * 60 + ["b"] * 40, ["a"] * 30 + ["b"] * 70)
    one, other = np.array([60.5, 40.5]) / 101, np.array([30.5, 70.5]) / 101
    assert found.stability_index == pytest.approx(((other - one) * np.log(other / one)).sum())
    # Ten bins of ten numbers each, in which the others are as they were, or all in one.
    numbers = list(range(100))
    assert of_numbers(numbers, numbers).stability_index == pytest.approx(0, abs=1e-9)
    assert of_numbers(numbers, [99] * 100).stability_index > 1


def test_the_same_is_at_no_distance_and_another_thing_far_away():
    same = of_numbers(range(50), range(50)), of_categories("ab" * 50, "ba" * 50)
    assert [each.value for each in same] == [0, 0] and all(each.p == pytest.approx(1) for each in same)
    other = of_numbers(range(50), range(100, 150)), of_categories("a" * 50, "b" * 50)
    assert [each.value for each in other] == [1, 1] and all(each.p < 0.001 for each in other)


def test_of_very_many_a_small_difference_is_sure_and_small():
    rng = np.random.default_rng(0)
    found = of_numbers(rng.normal(size=200_000), rng.normal(0.05, size=200_000))
    assert found.p < 0.001 and found.value < 0.05 and 0 < found.low < found.value < found.high
    shares = of_categories(
        np.repeat(["a", "b"], [100_000, 100_000]), np.repeat(["a", "b"], [104_000, 96_000])
    )
    assert shares.p < 0.001 and shares.value == pytest.approx(0.02)


def test_bounds_hold_and_tests_keep_their_level():
    """Of 200 pairs of samples: the true distances are known."""
    rng, inside, below = np.random.default_rng(1), [], []
    for _ in range(200):
        found = of_numbers(rng.random(60), rng.random(40) + 0.3)
        inside.append(found.low <= 0.3 <= found.high)
        found = of_categories(rng.choice(3, 80, p=[0.5, 0.3, 0.2]), rng.choice(3, 80, p=[0.2, 0.3, 0.5]))
        inside.append(found.low <= 0.3 <= found.high)
        below += [
            of_numbers(rng.random(60), rng.random(40)).p < 0.05,
            of_categories(rng.choice(3, 60), rng.choice(3, 60)).p < 0.05,
        ]
    assert np.mean(inside) >= 0.95 and np.mean(below) <= 0.08
