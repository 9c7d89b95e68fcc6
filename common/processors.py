"""Cores and how a server shares them: threads × computations at once × workers is never more than there are cores."""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a container says how much of the processors it may use (cgroup v2)."""


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


def workers(argv: Sequence[str]) -> int | None:
    """How many processes `mlflow models serve` was told to start, None for another command line than its server's.

    A worker process has the command line of the one that started it.
    """
    if not argv or Path(argv[0]).name != "uvicorn":
        return None
    given = [value for name, value in zip(argv, argv[1:], strict=False) if name == "--workers"]
    return int(given[-1]) if given else int(os.environ.get("WEB_CONCURRENCY", 1))


def share_cores(model: torch.nn.Module, argv: Sequence[str] | None = None) -> int | None:
    """In a server, let this worker use its share of the cores, and its requests take turns at the model.

    OMP_NUM_THREADS, where it is set, says how many threads one computation takes; else it is all of the worker's share.
    A turn is one batch, so that a short question does not wait for all windows of a long one. Returns how many may
    compute at once, None outside of a server, where nothing is changed.
    """
    processes = workers(sys.argv if argv is None else argv)
    if processes is None:
        return None
    share = max(1, cores() // processes)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(share)
    at_once = max(1, share // torch.get_num_threads())
    turns = _turns(at_once)

    def begin(*_):
        turns.acquire()

    def end(*_):
        turns.release()

    model.register_forward_pre_hook(begin)
    model.register_forward_hook(end, always_call=True)
    return at_once


_TURNS: dict[int, threading.Semaphore] = {}


def _turns(at_once: int) -> threading.Semaphore:
    """One for the whole process, however many models it holds."""
    return _TURNS.setdefault(at_once, threading.Semaphore(at_once))
