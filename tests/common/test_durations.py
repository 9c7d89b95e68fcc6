import math

import pytest

from common.durations import clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (29.6, "0:30"),
        (59.7, "1:00"),
        (3599.5, "1:00:00"),
        (3725, "1:02:05"),
        (90000, "25:00:00"),
    ],
)
def test_seconds_are_rounded_and_hours_shown_where_there_are_some(seconds, text):
    assert clock(seconds) == text


def test_nothing_is_shown_where_nothing_is_known():
    assert clock(math.nan) == ""
