"""What a limit draws of the data."""

from collections import Counter

from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from common.training import sampling
from common.training.sampling import drawn, subset


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(0, 3))
def test_subsets_are_nested_and_balanced(labels, seed):
    smaller, total = set(), Counter(labels)
    for n in range(1, len(labels) + 1):
        places = drawn(len(labels), n, seed, labels)
        if n == len(labels):
            assert places is None
            return
        assert len(places) == n and places == sorted(places) and smaller < set(places)
        smaller, counts = set(places), Counter(labels[i] for i in places)
        # No label has two more texts than another that has texts left.
        assert all(counts[a] <= counts[b] + 1 for a in total for b in total if counts[b] < total[b])


def test_subsets_follow_the_seed_and_questions_are_drawn_as_ever():
    labels = [i % 2 for i in range(40)]
    assert drawn(40, 10, 1, labels) == drawn(40, 10, 1, labels) != drawn(40, 10, 2, labels)
    assert drawn(40, 5, 42) == [3, 9, 10, 25, 36]
    assert drawn(40, 99, 1, labels) is drawn(40, None, 1, labels) is None


def test_the_values_of_a_column_are_read_at_once(monkeypatch):
    """A column of `datasets` reads its file for every value."""
    given = []

    def noted(count, n, seed, values=None):
        given.append(values)
        return drawn(count, n, seed, values)

    monkeypatch.setattr(sampling, "drawn", noted)
    rows = Dataset.from_list([{"id": i, "label": i % 2} for i in range(40)])
    assert Counter(subset(rows, 10, 1, "label")["label"]) == {0: 5, 1: 5}
    assert subset(rows, 40, 1, "label") is subset(rows, None, 1, "label") is rows
    assert subset(rows, 5, 42)["id"] == [3, 9, 10, 25, 36]
    assert isinstance(given[0], list) and given[1:] == [None] * 3
