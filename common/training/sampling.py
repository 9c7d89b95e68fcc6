"""A limited number of examples, drawn by the run's seed."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..data.record import Example


def drawn(count: int, n: int | None, seed: int, values: Sequence[Any] | None = None) -> list[int] | None:
    """The places of `n` of so many examples, drawn by the seed, in their order; None where all are taken: without a limit.

    A smaller n draws a subset. values: one for each example; each of them is drawn as often as every other, as long as there
    are examples of it.
    """
    if n is None or n >= count:
        return None
    order = list(range(count))
    random.Random(seed).shuffle(order)
    if values is not None:
        seen: Counter[object] = Counter()
        turns: dict[int, tuple[int, Any]] = {}
        for i in order:
            turns[i] = (seen[values[i]], values[i])
            seen[values[i]] += 1
        order.sort(key=turns.__getitem__)
    return sorted(order[:n])


def sample(examples: Sequence[Example], n: int | None, seed: int, by: str | None = None) -> list[Example]:
    """Those of a list of examples that `drawn` chooses. by: the column whose values are drawn equally often."""
    values = None if by is None else [example[by] for example in examples]
    places = drawn(len(examples), n, seed, values)
    return list(examples) if places is None else [examples[i] for i in places]
