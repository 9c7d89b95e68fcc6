"""Intervals that cover as often as they say, and tests that find true differences and no false ones."""

import numpy as np
import pytest

from common.scoring.bootstrap import bootstrap_interval, interval_of_sums, paired_bootstrap


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.random(100) < 0.6, n=500, seed=seed)
        hits += low <= 0.6 <= high
    assert 180 <= hits <= 199


def test_the_interval_is_that_of_resampling_one_by_one_and_repeats():
    values = np.random.default_rng(1).random(50) * 100
    rng = np.random.default_rng(2)
    means = [np.mean(rng.choice(values, 50)) for _ in range(5000)]
    interval = bootstrap_interval(values, n=5000, seed=0)
    assert interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.7)
    assert interval == bootstrap_interval(list(values), n=5000, seed=0)
    assert interval != bootstrap_interval(values, n=5000, seed=1)
    narrower = bootstrap_interval(values, n=5000, confidence=0.5)
    assert interval[0] < narrower[0] < values.mean() < narrower[1] < interval[1]
    assert all(type(bound) is float for bound in interval)


def test_the_interval_of_many_values_is_nearly_the_normal_one():
    values = np.random.default_rng(0).random(5000)
    assert bootstrap_interval(values, n=1500) == pytest.approx(
        (values.mean() - 1.96 * values.std() / 5000**0.5, values.mean() + 1.96 * values.std() / 5000**0.5),
        abs=1e-3,
    )


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_resampling_needs_scores(values):
    with pytest.raises(ValueError, match="at least one score"):
        bootstrap_interval(values)


def test_paired_bootstrap_finds_a_true_difference_and_no_false_one():
    rng = np.random.default_rng(0)
    hard = rng.random(400)
    better, worse = (hard < 0.7).astype(float), (hard < 0.6).astype(float)
    result = paired_bootstrap(better, worse)
    assert result["difference"] == pytest.approx((better - worse).mean())
    assert 0 < result["low"] < result["difference"] < result["high"]
    assert result["p"] == pytest.approx(2 / 2001)
    noise = paired_bootstrap(rng.random(400), rng.random(400))
    assert noise["low"] < 0 < noise["high"] and noise["p"] > 0.05


def test_paired_bootstrap_turns_round():
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 60))
    one, other = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert one["p"] == other["p"]
    assert one["difference"] == -other["difference"]
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))
    same = paired_bootstrap(a, a)
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    with pytest.raises(ValueError, match="same examples"):
        paired_bootstrap(a, b[:-1])


def test_p_values_are_small_as_often_as_they_say():
    rng = np.random.default_rng(4)
    small = sum(paired_bootstrap(*rng.normal(size=(2, 80)), n=400)["p"] < 0.1 for _ in range(300))
    assert 12 <= small <= 55


def test_the_interval_of_a_ratio_is_that_of_resampled_examples_dense_or_sparse():
    from scipy.sparse import csr_array

    rng = np.random.default_rng(0)
    counts = np.stack([rng.poisson(2, 120), rng.poisson(5, 120) + 1], axis=1)

    def ratio(sums):
        return sums[:, 0] / sums[:, 1]

    found = interval_of_sums(counts, ratio)
    resampled = [ratio(counts[rng.integers(120, size=120)].sum(axis=0)[None])[0] for _ in range(2000)]
    assert found == pytest.approx(np.quantile(resampled, (0.025, 0.975)), abs=0.01)
    assert interval_of_sums(csr_array(counts), ratio) == found
    # Of a mean it is the bootstrap's own, but for the examples that are drawn.
    values = rng.random(200)
    mean = interval_of_sums(values[:, None], lambda sums: sums[:, 0] / 200)
    assert mean == pytest.approx(bootstrap_interval(values), abs=0.01)
    with pytest.raises(ValueError, match="at least one example"):
        interval_of_sums(np.zeros((0, 2)), ratio)
