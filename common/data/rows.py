"""Rows of prepared data that stay on disk: what is read of them is in memory, and no more."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

from .record import Example

AT_ONCE = 1_000
"""Rows that are read together where all are."""


class Rows(Sequence[Example]):
    """The rows of a `datasets.Dataset`, each of which is made when it is asked for."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, i: int) -> Example: ...
    @overload
    def __getitem__(self, i: slice) -> list[Example]: ...
    def __getitem__(self, i: int | slice) -> Example | list[Example]:
        if isinstance(i, slice):
            rows: list[Example] = self.dataset.select(range(*i.indices(len(self)))).to_list()
            return rows
        return self.dataset[i]

    def __iter__(self) -> Iterator[Example]:
        for begin in range(0, len(self), AT_ONCE):
            yield from self[begin : begin + AT_ONCE]
