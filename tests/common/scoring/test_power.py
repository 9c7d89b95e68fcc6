"""What a test set can show, held against simulation."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from common.scoring import power
from common.scoring.uncertainty import paired_difference


def differences(rng, size, shift=0.0):
    """Of two models' scores of single questions, many of them equal: 0, or somewhere from -1 to 1."""
    return np.where(rng.random(size) < 0.7, 0.0, rng.uniform(-1, 1, size)) + shift


@pytest.mark.parametrize("n", [40, 300])
def test_the_smallest_difference_is_found_four_times_of_five(n):
    rng = np.random.default_rng(0)
    typical = np.mean([power.smallest_difference(differences(rng, n)) for _ in range(200)])
    p = ttest_1samp(differences(rng, (4000, n), typical), 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_so_many_examples_decide_a_tie():
    rng = np.random.default_rng(1)
    sample = differences(rng, 200)
    sample += 0.05 - sample.mean()
    needed = power.examples_to_decide(sample)
    assert needed > 200
    drawn = rng.choice(sample, size=(3000, int(needed)))
    assert (ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_so_many_seeds_decide_a_tie():
    rng = np.random.default_rng(2)
    examples, sd = 2000, 0.02
    by_example = rng.normal(0, 0.2, examples)
    by_example += 0.03 - by_example.mean()
    seeds = power.seeds_to_decide(by_example, sd**2)
    assert 2 < seeds < 20
    # With so many seeds of each, what seeds and examples add to the error is what 80% need.
    error = math.sqrt(2 * sd**2 / seeds + by_example.var(ddof=1) / examples)
    found = np.abs(0.03 + rng.normal(0, error, 20_000)) > 1.96 * error
    assert 0.8 <= found.mean() < 0.86


def test_some_ties_nothing_decides():
    same = np.array([0.1, -0.1, 0.2, -0.2])
    assert power.examples_to_decide(same) == math.inf
    assert power.seeds_to_decide(same, 0.01) == math.inf
    assert power.examples_to_decide(np.full(5, 0.1)) == 2


def test_more_power_takes_a_larger_difference():
    values = differences(np.random.default_rng(0), 500)
    assert power.smallest_difference(values, power=0.9) > power.smallest_difference(values)


def test_what_can_be_shown_agrees_with_the_test_that_shows_it():
    """A difference twice the smallest one has a small p in the suite's own paired test."""
    rng = np.random.default_rng(5)
    other = rng.random(400)
    one = np.clip(other + differences(rng, 400) * 0.3, 0, 1)
    one += 2 * power.smallest_difference(one - other) - (one - other).mean()
    assert paired_difference(one, other)["p"] < 0.01


@pytest.mark.parametrize("values", [[], [0.1], [[0.1, 0.2]]])
def test_power_needs_two_differences(values):
    with pytest.raises(ValueError, match="two differences"):
        power.smallest_difference(values)
