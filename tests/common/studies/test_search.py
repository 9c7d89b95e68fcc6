"""Search spaces: what may be proposed, in which form it is trained, and where a space ends."""

import math

import pytest

from common.studies import search
from common.studies.search import Space

RATE = Space("loguniform", (1e-4, 1e-2))
RANK = Space("choice", (4, 8))
HEADS = Space("int", (1, 3))


def test_proposed_numbers_have_few_digits_and_stay_within_their_bounds():
    assert RATE.settle(0.00123456) == 0.001235
    assert Space("uniform", (0.0, 0.123456)).settle(0.1234559) == 0.123456
    assert RANK.settle(8) == 8 and HEADS.settle(2) == 2


def test_corners_hold_every_bound_and_every_choice():
    found = search.corners({"lr": RATE, "r": Space("choice", (4, 8, 16))})
    assert {point["lr"] for point in found} == {1e-4, 1e-2} and {point["r"] for point in found} == {4, 8, 16}
    assert all(point not in found[:i] for i, point in enumerate(found))


def test_a_space_without_real_numbers_can_be_counted_through():
    assert (
        search.count({"r": RANK, "heads": HEADS}) == 6 and search.count({"lr": RATE, "r": RANK}) == math.inf
    )
    found = list(search.every_point({"r": RANK, "heads": HEADS}))
    assert len(found) == 6 and found[0] == {"r": 4, "heads": 1} and found[-1] == {"r": 8, "heads": 3}


@pytest.mark.parametrize(
    ("point", "is_within"),
    [
        ({"lr": 1e-4, "r": 4}, True),
        ({"lr": 2e-2, "r": 4}, False),
        ({"lr": 1e-3, "r": 5}, False),
        ({"lr": 1e-3}, False),
        ({"lr": 1e-3, "r": 4, "alpha": 8}, False),
        ({"lr": None, "r": 4}, False),
    ],
)
def test_points_of_another_space_are_not_taken_for_its_own(point, is_within):
    assert search.within(point, {"lr": RATE, "r": RANK}) is is_within


@pytest.mark.parametrize(
    ("space", "value", "end"),
    [
        (RATE, 1.2e-4, "lowest"),
        (RATE, 1.5e-4, ""),
        (RATE, 8.5e-3, "highest"),
        (Space("uniform", (0.0, 1.0)), 0.96, "highest"),
        (HEADS, 1, "lowest"),
        (HEADS, 2, ""),
        (RANK, 8, "highest"),
        (Space("choice", ("all", "attention")), "all", ""),
        (Space("choice", (None, 4)), 4, ""),
        (Space("choice", (4,)), 4, ""),
    ],
)
def test_the_ends_of_a_space(space, value, end):
    assert space.end(value) == end
