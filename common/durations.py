"""Seconds as people read them."""

import math


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, without leading zeros: "1:02:05", "0:30"; "" where nothing is known (NaN)."""
    if math.isnan(seconds):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
