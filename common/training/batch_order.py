"""The order of windows in training: batches of similar length, in an order that depends on seed and epoch alone."""

import math
from collections.abc import Iterator

import numpy as np
import torch

POOL = 50
"""Number of batches whose random windows are sorted by length together: enough to save padding, few enough to mix."""


class GroupedBatches(torch.utils.data.Sampler[list[int]]):
    """Batches of window indices; every window once an epoch, on one process.

    part: (i, n) yields the share of the i-th of n processes. All have the same number of batches, whose sizes differ by at
    most one, so that no window is repeated or dropped to even them out.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, part: tuple[int, int] = (0, 1)):
        self.lengths, self.seed, self.part, self.epoch = lengths, seed, part, 0
        processes = part[1]
        if len(lengths) < processes:
            raise ValueError(f"{len(lengths)} windows cannot be shared among {processes} processes")
        # Every step has a window for every process; batches may then have one window more than batch_size.
        self.steps = min(math.ceil(len(lengths) / (batch_size * processes)), len(lengths) // processes)

    def __len__(self) -> int:
        return self.steps

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        process, processes = self.part
        chunks = np.array_split(random.permutation(len(self.lengths)), self.steps)
        batches = []
        for begin in range(0, self.steps, POOL):
            group = chunks[begin : begin + POOL]
            pool = np.concatenate(group)
            pool = pool[np.argsort(-self.lengths[pool], kind="stable")]
            batches += np.split(pool, np.cumsum([len(chunk) for chunk in group])[:-1])
        process, processes = self.part
        for i in random.permutation(self.steps):
            yield batches[i][process::processes].tolist()


class Loader(torch.utils.data.DataLoader):
    """A DataLoader that passes the Trainer's epoch to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)
