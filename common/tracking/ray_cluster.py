"""A Ray cluster whose processes know this project and its MLflow store.

Needs requirements-ray.txt; only `--backend ray` imports this.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

# Read while Ray is imported, and by the processes that it starts.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")

import ray

from .. import stopping
from ..errors import NotHere, UserError
from ..paths import ROOT

_OBJECT_STORE = 100 * 2**20
"""Bytes of shared memory for what processes send each other."""


@contextlib.contextmanager
def connected(address: str | None, store: str) -> Iterator[None]:
    """A Ray cluster: the one at the address, or one of this machine alone that ends with the block.

    store: URI of the MLflow store, which all processes get. NotHere if there is no such cluster. A signal that asks to leave
    ends the block, with the exit code that belongs to it.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": path, "MLFLOW_TRACKING_URI": store}
    own: dict[str, Any] = (
        {} if address else {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    )
    logging.getLogger("ray").setLevel(logging.ERROR)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        ray.init(
            address or "local",
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"--address {address}: " if address else ""
        raise NotHere(f"{where}Ray cannot be used: {' '.join(str(error).split())[:300]}") from None
    signals: list[int] = []

    def leave(number: int, _: object) -> None:
        signals.append(number)
        stopping.leave(number)

    # In place of Ray's own, which prints a stack of its C++.
    for number in handlers:
        signal.signal(number, leave)
    try:
        yield
    except SystemExit:
        if signals:
            # Ray turns every exit code into 1 while it waits.
            sys.exit(128 + signals[0])
        raise
    finally:
        ray.shutdown()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def check_store(store: str) -> None:
    """UserError where the cluster has several machines and the store is a file of this one."""
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(machines) > 1 and store.startswith("sqlite:"):
        raise UserError(
            f"The MLflow store {store} is a file of this machine, and the cluster has several: set MLFLOW_TRACKING_URI to a "
            "server that all reach (docs/TEAM.md shows how to start one)."
        )
