"""How much data each rung has, and who goes on."""

import math

import pytest

from common.studies import halving


@pytest.mark.parametrize(
    ("total", "amounts"),
    [
        (9000, [1000, 3000, 9000]),
        (1000, [111, 333, 1000]),
        (300, [100, 300]),
        (100, [100]),
        (10, [10]),
        (1, [1]),
    ],
)
def test_rungs_have_three_times_as_much_data_each_up_to_all(total, amounts):
    assert halving.amounts(total) == amounts


def test_rates_lie_around_the_default():
    assert halving.rates(1e-3) == [3e-4, 1e-3, 3e-3]
    assert halving.rates(0.007) == [0.0021, 0.007, 0.021]
    assert halving.rates(0.12345, [1.0]) == [0.12345]


def test_the_best_third_goes_on_and_never_fewer_than_two():
    assert [halving.keeps(n) for n in (1, 2, 3, 6, 7, 11, 20)] == [1, 2, 2, 2, 3, 4, 7]


def test_candidates_by_score():
    scores = {"a": 1.0, "b": math.nan, "c": 3.0, "d": 1.0, "e": -math.inf}
    assert halving.ranked(scores) == ["c", "a", "d"]


def test_what_fits_into_the_time_that_is_left():
    assert halving.affordable([10, 20, 30], 60) == 3
    assert halving.affordable([10, 20, 30], 59) == 2
    assert halving.affordable([10], 9) == 0
    assert halving.affordable([10, 20], math.inf) == 2


def test_less_data_where_time_is_short_and_none_where_it_would_show_little():
    assert halving.smaller(900, [60, 60], 60, before=100) == 450
    assert halving.smaller(900, [60, 60], 60, before=300) == 450
    assert halving.smaller(900, [60, 60], 60, before=301) is None
    assert halving.smaller(900, [60, 60], 600, before=300) == 900
