"""What a run's machine does meanwhile: processor, memory, disk, network, and the GPU where there is one, by MLflow's own monitors.

MLflow starts them for runs of its own fluent functions alone. Their names begin with PREFIX, which MLflow's pages show apart
from the run's own metrics.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from mlflow.environment_variables import (
    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING,
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
)

from ..errors import UserError

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

PREFIX = "system/"

INTERVAL = 10.0
"""Seconds between two samples, unless MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says another number; a run that is shorter has
none."""


def without(metrics: Mapping[str, float]) -> dict[str, float]:
    """A run's metrics without these, which say nothing about its result."""
    return {name: value for name, value in metrics.items() if not name.startswith(PREFIX)}


@contextlib.contextmanager
def sampled(log: Callable[[Mapping[str, float]], None], seconds: float | None) -> Iterator[None]:
    """Call `log` with what the machine did, every so many seconds until the block ends, in a thread of its own; None: never.

    Whatever goes wrong there ends the samples, not the block.
    """
    if seconds is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_sample, args=(log, seconds, ended), name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # A disk or a driver that does not answer must not keep the run from ending.
        thread.join(2.0)


def interval() -> float | None:
    """Seconds between two samples; None if there are to be none. UserError if a variable cannot be read."""
    wanted, every = MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING, MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL
    try:
        on = wanted.get() if wanted.is_set() else True
    except ValueError:
        raise UserError(f"{wanted} is {wanted.get_raw()!r}: set it to true or false.") from None
    try:
        given = every.get()
        seconds = INTERVAL if given is None else given
    except ValueError:
        seconds = 0.0
    if on and not 0 < seconds < threading.TIMEOUT_MAX:
        raise UserError(f"{every} is {every.get_raw()!r}: set it to a number of seconds above 0.")
    return seconds if on else None


def _sample(log: Callable[[Mapping[str, float]], None], seconds: float, ended: threading.Event) -> None:
    with contextlib.suppress(Exception):
        monitors = _monitors()
        # The use of the processor is counted from here.
        _measured(monitors)
        while not ended.wait(seconds):
            log({PREFIX + name: float(value) for name, value in _measured(monitors).items()})


def _measured(monitors: "list[BaseMetricsMonitor]") -> dict[str, float]:
    found: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        found |= monitor.aggregate_metrics()
        monitor.clear_metrics()
    return found


def _monitors() -> "list[BaseMetricsMonitor]":
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    found: list[BaseMetricsMonitor] = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor, ROCMMonitor):
        # Those whose device or package is not here cannot be made, or not be asked.
        with contextlib.suppress(Exception):
            monitor = kind()
            monitor.collect_metrics()
            monitor.clear_metrics()
            found.append(monitor)
    return found
