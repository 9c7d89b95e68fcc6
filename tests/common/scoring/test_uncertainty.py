"""Intervals and tests over seeds and examples: by hand, and as often right as they say."""

import numpy as np
import pytest

from common.scoring.bootstrap import bootstrap_interval, paired_bootstrap
from common.scoring.uncertainty import (
    holm,
    interval,
    paired_difference,
    range_of_samples,
    share_misranked,
    shown_p,
    spread_of,
)


def drawn(rng, seeds, examples, seed_sd, mean=0.6):
    """Scores 0 or 1 of models that differ by seed, on examples that are hard for all of them alike."""
    hardness = rng.normal(0, 0.25, examples)
    each = mean + rng.normal(0, seed_sd, (seeds, 1)) + hardness + rng.normal(0, 0.25, (seeds, examples))
    return each


def test_one_seed_is_the_bootstrap_over_examples():
    a, b = np.random.default_rng(0).random((2, 80))
    assert interval(a[None]) == interval(a) == bootstrap_interval(a)
    assert paired_difference(a[None], b[None]) == paired_bootstrap(a, b)


def test_the_half_width_by_hand():
    # Means of the seeds 0.25 and 1; the examples add nothing beyond what is left.
    scores = np.array([[0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    half = 12.7062 * np.sqrt(np.var([0.25, 1.0], ddof=1) / 2)
    assert interval(scores) == pytest.approx((0.625 - half, 0.625 + half), rel=1e-4)
    # Three examples that are hard for both alike: mean squares 1/6 of seeds, 8/3 of examples, 0 left.
    scores = np.array([[0.0, 1.0, 2.0], [1 / 3, 4 / 3, 7 / 3]])
    half = np.sqrt(12.7062**2 * (1 / 18 / 2) + 4.30265**2 * (2 / 6))
    mean = 1 + 1 / 6
    assert interval(scores) == pytest.approx((mean - half, mean + half), rel=1e-4)


def test_seeds_that_agree_leave_the_interval_of_the_examples():
    values = np.random.default_rng(1).random(400)
    low, high = interval(np.stack([values] * 3))
    error = 1.966 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=1e-4)
    assert interval(np.ones((3, 9))) == (1.0, 1.0)


@pytest.mark.parametrize(("seeds", "seed_sd"), [(2, 0.0), (2, 0.1), (3, 0.03), (5, 0.1)])
def test_the_interval_covers_at_least_as_often_as_it_says(seeds, seed_sd):
    rng = np.random.default_rng(seeds)
    tries, hits = 600, 0
    for _ in range(tries):
        low, high = interval(drawn(rng, seeds, 150, seed_sd))
        hits += low <= 0.6 <= high
    assert 0.935 <= hits / tries <= 0.995


def test_pooling_seeds_covers_as_often_with_much_shorter_intervals():
    rng = np.random.default_rng(5)
    hits, pooled, alone = 0, [], []
    for _ in range(100):
        hardness = rng.normal(0, 0.25, 150)
        six = [0.6 + rng.normal(0, 0.03, (3, 1)) + hardness + rng.normal(0, 0.25, (3, 150)) for _ in range(6)]
        spread = spread_of(six)
        assert spread.freedom == 12
        for scores in six:
            low, high = interval(scores, spread)
            hits += low <= 0.6 <= high
            pooled.append(high - low)
            alone.append(np.subtract(*reversed(interval(scores))))
    assert 0.935 <= hits / 600 <= 0.995 and np.mean(pooled) < 0.85 * np.mean(alone)


def test_the_pooled_spread_by_hand():
    a, b = np.array([[0.0, 0.2], [0.4, 0.2]]), np.array([[0.0, 0.0], [0.3, 0.3], [0.6, 0.6]])
    spread = spread_of([a, b, np.ones((1, 2))])
    assert spread == (pytest.approx((0.02 + 0.18) / 3), 3)
    assert spread_of([np.ones((1, 9))] * 4) is None
    # A single seed has the spread of the others, and a configuration that varies more its own.
    low, high = interval(np.full((1, 5), 0.5), spread)
    assert high - low == pytest.approx(2 * 3.18245 * (0.2 / 3) ** 0.5, rel=1e-4)
    low, high = interval(b, spread)
    assert high - low == pytest.approx(2 * 3.18245 * (0.09 / 3) ** 0.5, rel=1e-4)


def test_resampling_three_seeds_would_cover_it_too_seldom():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(150):
        scores = drawn(rng, 3, 150, 0.1)
        picked = rng.integers(3, size=(300, 3)), rng.integers(150, size=(300, 150))
        means = [scores[np.ix_(s, e)].mean() for s, e in zip(*picked, strict=True)]
        low, high = np.quantile(means, [0.025, 0.975])
        hits += low <= 0.6 <= high
    assert hits / 150 < 0.88


def test_the_test_errs_as_often_as_it_says_and_finds_what_is_there():
    rng = np.random.default_rng(3)
    false = found = 0
    for _ in range(250):
        hardness = rng.normal(0, 0.3, 200)
        a, b = (rng.normal(0, 0.02, (3, 1)) + hardness + rng.normal(0, 0.2, (3, 200)) for _ in range(2))
        false += paired_difference(a, b)["p"] < 0.05
        found += paired_difference(a + 0.15, b)["p"] < 0.05
    assert false / 250 < 0.08 and found / 250 > 0.9


def test_differences_turn_round():
    a, b = np.random.default_rng(4).random((2, 3, 50))
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one["p"] == pytest.approx(other["p"]) and one["difference"] == pytest.approx(-other["difference"])
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))
    assert (one["low"] > 0 or one["high"] < 0) == (one["p"] < 0.05)
    same = paired_difference(a, a)
    assert same["difference"] == 0 and same["p"] == 1 and same["low"] == -same["high"] < 0
    # No pairing by seed: how many there are may differ.
    assert paired_difference(a[:2], b)["difference"] == pytest.approx(a[:2].mean() - b.mean())
    assert paired_difference(np.ones((2, 3)), np.zeros((2, 3)))["p"] < 1e-5
    with pytest.raises(ValueError, match="same examples"):
        paired_difference(a, b[:, :2])
    with pytest.raises(ValueError, match="seeds, examples"):
        interval(np.zeros((0, 3)))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, np.nan, 0.9]) == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)
    assert len(holm([])) == 0


def test_a_p_value_is_never_shown_as_0():
    assert [shown_p(p) for p in (0.0, 0.00049, 0.0005, 0.0421, 1.0)] == ["< 0.001"] * 2 + [
        "0.001",
        "0.042",
        "1.000",
    ]
    assert shown_p(float("nan")) == ""


def test_a_score_of_five_examples_by_hand():
    half = np.repeat([0.0, 1.0], 500)
    # Five tosses of a coin: none or all right in 1 of 32 each.
    assert range_of_samples(half, 5) == (0.0, 1.0)
    low, high = range_of_samples(half, 100)
    assert (low, high) == pytest.approx((0.4, 0.6), abs=0.011)
    # Better in 3 of 5 examples, worse in 2: five draws favour the worse where it wins three or more.
    better, worse = np.array([1, 1, 1, 0, 0]), np.array([0, 0, 0, 1, 1])
    share = sum(c * 0.4**k * 0.6 ** (5 - k) for k, c in ((3, 10), (4, 5), (5, 1)))
    assert share_misranked(better, worse, 5) == pytest.approx(share, abs=0.015)
    assert share_misranked(better, better, 5) == 1.0
