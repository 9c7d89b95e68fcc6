"""What a stored model needs while it serves: its base, a guarded server, and a share of the cores.

Threads × computations at once × workers is never more than there are cores.
"""

import functools
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import torch
from mlflow.pyfunc import PythonModelContext

from ..models.bundles import check_base, read_bundle, read_reference
from .server_guard import guard_server
from .server_process import SERVER, in_server, workers

INTERFACE = "suite_cores_1"
"""Where the server's module holds its cores; the number changes with the methods of `Cores`."""

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The file in which a container states its share of the processors (cgroup v2)."""


def fetch(context: PythonModelContext) -> tuple[Path, str | None]:
    """(saved model, its base) for MLflow's context; an adapter's shared base is fetched from the store where it is not inside."""
    bundle = Path(context.artifacts["bundle"])
    # MLflow stores artifacts in a folder of that name.
    guard_server(bundle.parent.parent)
    reference = read_reference(bundle)
    if reference is None:
        return bundle, None
    base = mlflow.artifacts.download_artifacts(reference["uri"])
    check_base(Path(base), read_bundle(bundle).base_fingerprint)
    return bundle, base


def cores() -> int:
    """Cores that this process may use, at least 1: what its affinity allows, and its container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        allowed = min(allowed, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        # No such file, or "max".
        pass
    return allowed


def share_cores(model: torch.nn.Module, argv: Sequence[str] | None = None) -> "Cores | None":
    """In a server, limit this worker to its share of the cores, and let its requests take turns at the model.

    A turn is one batch, so that a short question does not wait for all windows of a long one. A turn takes every free
    core, or its part of them if others wait: many small computations on one core each finish sooner than one after
    another on all cores. If OMP_NUM_THREADS is set, each turn takes that number of cores. Returns the shared cores, or
    None outside of a server, where nothing changes.
    """
    shared = shared_cores(argv)
    if shared is None:
        return None
    taken = threading.local()

    def begin(*_: object) -> None:
        taken.count = shared.take()
        # Of this thread; others keep theirs.
        torch.set_num_threads(taken.count)

    def end(*_: object) -> None:
        shared.give(taken.count)

    model.register_forward_pre_hook(begin)
    model.register_forward_hook(end, always_call=True)
    return shared


def shared_cores(argv: Sequence[str] | None = None) -> "Cores | None":
    """The cores that this worker of a server shares among its requests; None outside of a server."""
    processes = workers(sys.argv if argv is None else argv)
    return None if processes is None else cores_of_process(max(1, cores() // processes))


class Cores:
    """Cores that threads take and give back; `each`: how many a thread takes, None for all that are free."""

    def __init__(self, count: int, each: int | None = None):
        self.count = self.free = count
        self._each, self.changed = each, threading.Condition()
        # One that is woken is the next; all at once would fight for the lock after each turn.
        self._waiting: deque[threading.Event] = deque()

    @property
    def least(self) -> int:
        """Cores that must be free before a thread takes any."""
        return min(self._each or 1, self.count)

    @property
    def parts(self) -> tuple[int, ...]:
        """Numbers of cores for which a model is opened whose threads are fixed then, so that each thread finds one that is near
        to what it takes: at most three, because each holds the weights."""
        return (self.least,) if self._each else tuple(sorted({1, math.isqrt(self.count), self.count}))

    def take(self) -> int:
        """Wait for cores, behind those that wait already, then take this thread's part of them."""
        with self.changed:
            if not self._waiting and self.free >= self.least:
                return self.share(0)
            turn = threading.Event()
            self._waiting.append(turn)
        while True:
            turn.wait()
            with self.changed:
                turn.clear()
                if self._waiting[0] is turn and self.free >= self.least:
                    self._waiting.popleft()
                    taken = self.share(len(self._waiting))
                    self._wake()
                    return taken

    def share(self, others: int) -> int:
        """Take a part of the free cores while others wait; whoever calls holds `changed` and has seen that `least` are free."""
        taken = min(self._each or max(1, self.free // (1 + others)), self.count)
        self.free -= taken
        return taken

    def give(self, taken: int) -> None:
        with self.changed:
            self.free += taken
            self.changed.notify_all()
            self._wake()

    def _wake(self) -> None:
        """Let the thread that waits longest look whether there are cores for it."""
        if self._waiting and self.free >= self.least:
            self._waiting[0].set()


@functools.cache
def cores_of_process(count: int) -> Cores:
    """The cores of the whole process, however many models it holds, and however many copies of this code they brought."""
    each = os.environ.get("OMP_NUM_THREADS", "")
    place: Any = sys.modules.get(SERVER) if in_server() else None
    held = {} if place is None else vars(place).setdefault(INTERFACE, {})
    return held.setdefault((count, each), Cores(count, int(each) if each.isdecimal() and int(each) else None))
