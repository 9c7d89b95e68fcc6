"""A limited number of examples, drawn by the run's seed."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any


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


def subset(dataset: Any, n: int | None, seed: int, by: str | None = None) -> Any:
    """A `datasets.Dataset`, or those of its rows that `drawn` chooses. by: the column whose values are drawn equally often."""
    limited = n is not None and n < len(dataset)
    # A list: the column itself would read the file for each value that is asked for.
    places = drawn(len(dataset), n, seed, dataset[by][:] if by and limited else None)
    return dataset if places is None else dataset.select(places)
