"""Blocks answered by the workers of a Ray cluster: one model in each; what a dead worker held is answered again by another one.

Needs requirements-ray.txt; only `--backend ray` imports this.
"""

import contextlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..tracking import ray_cluster

# isort: split
# After that module, which says how Ray is to be imported.
import ray
from ray.exceptions import RayActorError, RayError

from ..errors import UserError
from ..tracking import store
from . import models
from .blocks import Answers
from .predicting import Block, answer

DEATHS = 3
"""How often a block's worker may die before the block counts as the reason: too much memory, likely."""

AHEAD = 2
"""Blocks that a worker is given at a time, so that it need not wait for the next one."""

LOADING = 600.0
"""Seconds that a worker may take to load its model."""

Answered = tuple[int, list[dict[str, Any]], Answers]


class Worker:
    """A process of the cluster with a model of its own, which `load` opens. pairs: as `models.load` takes it."""

    def __init__(self, name: str, pairs: bool = False):
        self.name, self.pairs = name, pairs

    def load(self) -> tuple[str, str]:
        """(what decides the model's answers, why it cannot be loaded): one of them is empty.

        Not in `__init__`: Ray calls a refusal there the death of the process.
        """
        try:
            self.model = models.load(self.name, pairs=self.pairs)
        except UserError as error:
            return "", str(error)
        return self.model.origin.content, ""

    def process(self) -> int:
        """The id of the process, on its machine."""
        return os.getpid()

    def answer(self, parameters: Mapping[str, Any], block: list[dict[str, Any]]) -> Answers | str:
        """A block's answers; a text says why an example of it cannot be answered."""
        try:
            return answer(self.model, parameters, block)
        except UserError as error:
            return str(error)


class Pool:
    """Workers on a cluster that answer blocks in any order; a worker that dies is replaced, and its blocks are given to others.

    name, content: of the model, which each worker must find to be the same. workers: how many; default: as many as the
    cluster has GPUs, or CPUs where it has none. pairs: whether the model takes pairs of texts.
    """

    def __init__(
        self,
        name: str,
        content: str,
        parameters: Mapping[str, Any],
        workers: int | None = None,
        *,
        pairs: bool = False,
    ):
        self.name, self.content, self.parameters, self.pairs = name, content, dict(parameters), pairs
        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        count = min(workers or cpus, gpus or cpus)
        if count < 1:
            raise UserError("The Ray cluster has no CPU for a worker: add a machine that has.")
        self._kind = ray.remote(num_cpus=1, num_gpus=min(gpus, 1))(Worker)
        self.workers: list[Any] = []
        """Those that have loaded the model."""
        self._starting: dict[Any, Any] = {}
        """Their promise to say which model they loaded → those that have not."""
        self._deaths: Counter[int | None] = Counter()
        """Number of a block, or None while loading → how many workers died over it."""
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        worker = self._kind.remote(self.name, self.pairs)
        self._starting[worker.load.remote()] = worker

    def __call__(self, waiting: Iterator[Block]) -> Iterator[Answered]:
        """Answer blocks; each is given back once, when it is answered. UserError names an example that cannot be."""
        again: deque[Block] = deque()
        running: dict[Any, tuple[Any, Block]] = {}
        more = True
        while True:
            for worker in self.workers:
                while more and sum(held is worker for held, _ in running.values()) < AHEAD:
                    block = again.popleft() if again else next(waiting, None)
                    if block is None:
                        more = False
                    else:
                        running[worker.answer.remote(self.parameters, block[1])] = (worker, block)
            if not running and not more:
                return
            done, _ = ray.wait([*running, *self._starting], timeout=None if running else LOADING)
            if not done:
                raise UserError(
                    f"No worker of the cluster has loaded {self.name} within {LOADING:g} seconds."
                )
            if done[0] in self._starting:
                self._loaded(done[0])
                continue
            worker, (number, asked) = running.pop(done[0])
            answers = self._answers(done[0], number, asked)
            if answers is None:
                again.append((number, asked))
                more = True
                self._replace(worker)
            else:
                yield number, asked, answers

    def _loaded(self, promise: Any) -> None:
        """Take a worker in that has loaded the model; UserError where it is another one than here, or cannot be loaded."""
        worker = self._starting.pop(promise)
        try:
            found, refusal = ray.get(promise)
        except RayError as error:
            if not isinstance(error, RayActorError) or self._died(None):
                reason = f"{self.name} cannot be loaded by a worker of the cluster: {_reason(error)}"
                raise UserError(reason) from None
            self._start()
            return
        if refusal:
            raise UserError(f"{self.name} cannot be loaded by a worker of the cluster: {refusal}")
        self._deaths.pop(None, None)
        if found != self.content:
            raise UserError(
                f"{self.name} is another model on the cluster ({found}) than here ({self.content}): give all machines the same "
                "store, folder and code."
            )
        self.workers.append(worker)

    def _answers(self, promise: Any, number: int, asked: Sequence[Mapping[str, Any]]) -> Answers | None:
        """A block's answers; None where its worker died."""
        try:
            answers: Answers | str = ray.get(promise)
        except RayActorError as error:
            if self._died(number):
                raise UserError(
                    f"Block {number} ({asked[0]['id']!r} and what follows) ended its worker {DEATHS + 1} times: too little "
                    f"memory, likely ({_reason(error)})."
                ) from None
            return None
        except RayError as error:
            raise UserError(f"A worker of the cluster failed: {_reason(error)}") from None
        if isinstance(answers, str):
            raise UserError(answers)
        return answers

    def _died(self, number: int | None) -> bool:
        """Count a death; whether there were too many over the same block."""
        self._deaths[number] += 1
        return self._deaths[number] > DEATHS

    def _replace(self, dead: Any) -> None:
        """Start a worker in the place of a dead one, once: its blocks come back one after another."""
        if dead in self.workers:
            self.workers.remove(dead)
            self._start()


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


@contextlib.contextmanager
def connected(address: str | None, name: str) -> Iterator[None]:
    """A Ray cluster for a model (`ray_cluster.connected`).

    name: of the model; workers of several machines cannot load it from a store that is a file of this one.
    """
    store.configure()
    with ray_cluster.connected(address, store.tracking_uri()):
        if ":/" in name:
            ray_cluster.check_store(store.tracking_uri())
        yield
