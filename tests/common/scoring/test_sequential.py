"""Bounds on what more seeds can change: by hand, and wrong no more often than they say."""

import math

import numpy as np
import pytest
from scipy import stats

from common.scoring.sequential import FREEDOM, Rule, over_examples, share_of_error, standing


def test_the_shares_of_the_error_add_up_over_looks_and_candidates():
    rule = Rule(planned=5, error=0.05)
    assert sum(share_of_error(look, rule, 4) for look in range(1, 5)) * 3 == pytest.approx(0.05)
    assert share_of_error(1, Rule(planned=2), 2) == pytest.approx(0.05)


def test_the_bound_after_one_seed_by_hand():
    """Only the declared sd is known: both candidates vary, and a third of the seeds has run."""
    rule = Rule(planned=3, smallest_difference=1.0, seed_sd=0.5)
    found = standing({"a": [60.0, None, None], "b": [50.0, None, None]}, rule)
    (b,) = found.decided
    error = 0.05 * 3 / (2 * 1 * 2)
    bound = -10 + stats.t.ppf(1 - error, FREEDOM) * math.sqrt(2 * 0.5**2 * (1 - 1 / 3))
    assert (b.candidate, b.leader, b.seeds, b.difference) == ("b", "a", 1, -10)
    assert b.bound == pytest.approx(bound) and b.error == pytest.approx(error)
    assert found.leader == "a" and not found.wanted


def test_the_residuals_of_later_seeds_are_pooled_by_hand():
    """What a seed does to both alike cancels: residuals of 0.5 in each of four cells, one degree of freedom."""
    rule = Rule(planned=3, smallest_difference=0.1, seed_sd=1.0)
    scores = {"a": [60.0, 72.0, None], "b": [60.0, 70.0, None]}
    found = standing(scores, rule)
    assert not found.decided and found.wanted == (("a", 2), ("b", 2))
    (b,) = standing(scores, Rule(planned=3, smallest_difference=1.5, error=0.4, seed_sd=3.0)).decided
    pooled = (FREEDOM * 9 + 4 * 0.5**2) / (FREEDOM + 1)
    own = (FREEDOM * pooled + 2 * 0.5**2) / (FREEDOM + 0.5)
    quantile = stats.t.ppf(1 - 0.4 * 3 / (2 * 2 * 3), FREEDOM + 1)
    assert b.seeds == 2 and b.difference == -1
    assert b.bound == pytest.approx(-1 + quantile * math.sqrt(2 * max(pooled, own) * (1 / 2 - 1 / 3)))


def test_runs_are_wanted_seed_by_seed_and_only_where_the_decision_is_open():
    rule = Rule(planned=4)
    scores = {name: [None] * 4 for name in "abc"}
    assert standing(scores, rule).wanted == (("a", 0), ("b", 0), ("c", 0))
    scores = {"a": [60.0] + [None] * 3, "b": [59.0, None, 80.0, None], "c": [10.0, 99.0, 99.0, 99.0]}
    found = standing(scores, rule)
    # Later scores of what was decided, and a seed out of turn, change nothing.
    assert [each.candidate for each in found.decided] == ["c"] and found.wanted == (("a", 1), ("b", 1))


def test_the_last_seed_decides_without_a_bound():
    scores = {"a": [60.0, 60.0], "b": [60.5, 60.5]}
    assert standing(scores, Rule(planned=2, smallest_difference=0.0)) == standing(scores, Rule(planned=2))
    found = standing(scores, Rule(planned=2))
    assert (found.leader, found.decided, found.wanted) == ("b", (), ())


def test_what_has_no_score_is_out_unless_nothing_has_one():
    nan = math.nan
    found = standing({"a": [nan, None], "b": [50.0, None], "c": [49.9, None]}, Rule(planned=2))
    assert [each.candidate for each in found.decided] == ["a"] and math.isnan(found.decided[0].bound)
    assert found.wanted == (("b", 1), ("c", 1))
    found = standing({"a": [nan, None], "b": [nan, None]}, Rule(planned=2))
    assert found.leader is None and found.wanted == (("a", 1), ("b", 1))
    # What b scores with the seed that failed for a says nothing of their difference.
    found = standing({"a": [60.0, nan, None], "b": [59.0, 1.0, None]}, Rule(planned=3, seed_sd=1.0))
    assert (found.leader, found.decided, found.wanted) == ("a", (), (("a", 2), ("b", 2)))
    # A decision has the number of its look, which is more than the seeds that both have.
    found = standing({"a": [60.0, 60.0, 60.0, None], "b": [59.8, nan, 10.0, None]}, Rule(planned=4))
    assert [(each.candidate, each.seeds, each.difference) for each in found.decided] == [
        ("b", 3, pytest.approx(-25.1))
    ]


@pytest.mark.parametrize(("gap", "sd"), [(0.0, 1.0), (1.0, 2.0), (3.0, 2.0)])
def test_the_best_of_the_full_study_is_rarely_lost_and_seeds_are_saved(gap, sd):
    """Studies of six candidates and five seeds, some with effects that all candidates share: at most 5% may go wrong."""
    rng, tries, wrong, runs = np.random.default_rng(7), 400, 0, 0
    for _ in range(tries):
        table = 60 - gap * np.arange(6)[:, None] + rng.normal(0, 3, 5) + rng.normal(0, sd, (6, 5))
        names = rng.permutation(list("abcdef"))
        full = dict(zip(names, table.mean(axis=1), strict=True))
        found = standing(dict(zip(names, table.tolist(), strict=True)), Rule(planned=5, seed_sd=sd))
        wrong += max(full.values()) - full[found.leader] >= 1.0
        seeds = {each.candidate: each.seeds for each in found.decided}
        most = max([*seeds.values(), 1]) if len(seeds) == 5 else 5
        runs += sum(seeds.values()) + most * (6 - len(seeds))
    assert wrong / tries <= 0.05
    assert runs / (30 * tries) < (0.6 if gap == 3 else 0.95)


def test_the_interval_over_examples_by_hand():
    values = np.array([0.0, 0.0, 50.0, 100.0])
    squared = (-2 * math.log(0.1) + math.log(-2 * math.log(0.1)) + 1) / 4
    half = values.std(ddof=1) * math.sqrt(
        2 * (4 * squared + 1) / (16 * squared) * math.log(math.sqrt(4 * squared + 1) / 0.1)
    )
    assert over_examples(values, 0.1) == pytest.approx((37.5 - half, 37.5 + half))
    assert over_examples(np.full(9, 2.0)) == (2.0, 2.0)
    with pytest.raises(ValueError, match="two differences or more, not 1"):
        over_examples([1.0])


def test_the_interval_over_examples_holds_at_all_numbers_at_once():
    """Differences of F1 as they are: mostly 0, some of them -100 to 100. Looked at after each fifth of 600 examples."""
    rng, tries, missed = np.random.default_rng(3), 400, 0
    for _ in range(tries):
        drawn = rng.choice([-100.0, -40.0, 0.0, 60.0, 100.0], p=[0.1, 0.1, 0.55, 0.1, 0.15], size=600)
        intervals = [over_examples(drawn[:n]) for n in range(60, 601, 60)]
        missed += not all(low <= 7.0 <= high for low, high in intervals)
    assert missed / tries <= 0.05
