"""Successive halving (Jamieson & Talwalkar, 2016): many candidates on little data, the best of them on more.

Only numbers: advisor.py trains.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FACTOR = 3
"""Each rung has this many times as much data, and a third of the candidates."""

RUNGS = 3

LEAST = 60
"""Training examples of the first rung: on fewer, scores are chance."""

FINALISTS = 2
"""As many reach the last rung at least, because a choice is between two."""

RATES = (0.3, 1.0, 3.0)
"""Learning rates of the first rung, as multiples of a technique's default."""


@dataclass(frozen=True)
class Rung:
    """One rung: the amount of data, and the learning rates of each technique."""

    examples: int
    rates: dict[str, list[float]]


def amounts(total: int, least: int = LEAST) -> list[int]:
    """Numbers of training examples of the rungs, up to all of them; fewer rungs where the first would have fewer than `least`."""
    found = [max(1, round(total / FACTOR**k)) for k in range(RUNGS)]
    kept = [amount for amount in found if amount >= least] or [total]
    return sorted(set(kept))


def rates(default: float, multiples: Sequence[float] = RATES) -> list[float]:
    """Learning rates around a technique's default, with two digits."""
    return [default if multiple == 1 else float(f"{default * multiple:.2g}") for multiple in multiples]


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Candidates by score, the best first; among equals the first one stays first. Scores that are not finite are left out."""
    known = [name for name, score in scores.items() if math.isfinite(score)]
    return sorted(known, key=lambda name: -scores[name])


def keeps(candidates: int) -> int:
    """How many of so many candidates go on to the next rung."""
    return min(candidates, max(FINALISTS, math.ceil(candidates / FACTOR)))


def affordable(seconds: Sequence[float], left: float) -> int:
    """How many of the candidates, in this order, can be trained in the time that is left; seconds: of each."""
    spent = 0.0
    for i, each in enumerate(seconds):
        spent += each
        if spent > left:
            return i
    return len(seconds)


def smaller(amount: int, seconds: Sequence[float], left: float, before: int) -> int | None:
    """The number of examples at which all these candidates can be trained in the time that is left; None if it is not at
    least half as many again as in the rung before.

    seconds: of each candidate at `amount` examples. Time is taken to be proportional to the examples.
    """
    share = left / sum(seconds) if sum(seconds) else 1.0
    found = math.floor(amount * min(1.0, share))
    return found if found >= 1.5 * before else None
