"""A limited number of examples, drawn by the run's seed."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..data.record import Example


def sample(examples: Sequence[Example], n: int | None, seed: int, by: str | None = None) -> list[Example]:
    """`n` examples drawn by the seed, in their order; all of them without a limit. A smaller n draws a subset.

    by: a column; each of its values is drawn as often as every other, as long as there are examples of it.
    """
    if n is None or n >= len(examples):
        return list(examples)
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    if by is not None:
        drawn: Counter[object] = Counter()
        turns: dict[int, tuple[int, Any]] = {}
        for i in order:
            value = examples[i][by]
            turns[i] = (drawn[value], value)
            drawn[value] += 1
        order.sort(key=turns.__getitem__)
    return [examples[i] for i in sorted(order[:n])]
