import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.training.batch_order import GroupedBatches

LENGTHS = np.random.default_rng(0).integers(40, 384, 2000)


@given(windows=st.integers(4, 400), batch_size=st.integers(1, 20), processes=st.integers(1, 4))
def test_every_window_once_and_as_many_batches_on_every_process(windows, batch_size, processes):
    lengths = np.arange(windows) % 37 + 1
    parts = []
    for i in range(processes):
        parts.append(list(GroupedBatches(lengths, batch_size, 0, (i, processes))))
    assert len({len(batches) for batches in parts}) == 1
    assert len(parts[0]) == len(GroupedBatches(lengths, batch_size, 0, (0, processes)))
    seen = [window for batches in parts for batch in batches for window in batch]
    assert sorted(seen) == list(range(windows))
    sizes = [len(batch) for batches in parts for batch in batches]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 2
    assert max(sizes) <= batch_size or (processes > 1 and max(sizes) == batch_size + 1)


def test_grouping_saves_most_of_the_padding():
    def computed(batches):
        return sum(len(batch) * LENGTHS[batch].max() for batch in batches)

    grouped = computed(GroupedBatches(LENGTHS, 16, 0))
    shuffled = computed(np.random.default_rng(0).permutation(2000).reshape(-1, 16))
    assert grouped < 1.06 * LENGTHS.sum() < shuffled


def test_order_depends_on_seed_and_epoch_alone():
    one, other = GroupedBatches(LENGTHS, 16, 0), GroupedBatches(LENGTHS, 16, 0)
    list(one)
    one.set_epoch(3)
    other.set_epoch(3)
    assert list(one) == list(other)
    other.set_epoch(4)
    assert list(one) != list(other)
    assert list(GroupedBatches(LENGTHS, 16, 1)) != list(GroupedBatches(LENGTHS, 16, 0))
