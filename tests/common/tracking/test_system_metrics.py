"""What the machine does while a run lasts: sampled by MLflow's monitors, and never in the way of the run."""

import math
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from mlflow.system_metrics.metrics import gpu_monitor

from common.errors import UserError
from common.tracking import system_metrics
from common.tracking.system_metrics import interval, sampled

ON = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
EVERY = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"


def taken(n, seconds=0.01):
    """The first n samples."""
    found, enough = [], threading.Event()

    def log(values):
        found.append(values)
        if len(found) == n:
            enough.set()

    with sampled(log, seconds):
        assert enough.wait(60)
    return found[:n]


def test_each_sample_has_processor_memory_disk_and_network():
    for values in taken(3):
        assert {
            "system/cpu_utilization_percentage",
            "system/system_memory_usage_megabytes",
            "system/system_memory_usage_percentage",
            "system/disk_usage_percentage",
            "system/network_receive_megabytes",
        } <= values.keys()
        assert all(math.isfinite(value) for value in values.values())
        assert 0 < values["system/system_memory_usage_percentage"] <= 100


def test_a_gpu_is_sampled_where_there_is_one(monkeypatch):
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=2e9, total=8e9),
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=70),
        nvmlDeviceGetPowerUsage=lambda handle: 100_000,
        nvmlDeviceGetEnforcedPowerLimit=lambda handle: 400_000,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(gpu_monitor, "pynvml", nvml, raising=False)
    (values,) = taken(1)
    assert values["system/gpu_0_utilization_percentage"] == 70
    assert values["system/gpu_0_memory_usage_percentage"] == 25
    assert values["system/gpu_0_power_usage_watts"] == 100


def test_a_block_that_is_shorter_than_the_interval_has_none():
    found = []
    with sampled(found.append, 3600.0):
        pass
    assert not found


def test_where_none_are_wanted_no_thread_is_started(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a thread was made")

    monkeypatch.setattr(threading, "Thread", refused)
    with sampled(print, None):
        pass
    with pytest.raises(AssertionError, match="a thread was made"), sampled(print, 3600.0):
        pass


def test_the_samples_end_with_the_block():
    threads, logged = [], threading.Event()

    def log(values):
        threads.append(threading.current_thread())
        logged.set()

    with sampled(log, 0.01):
        assert logged.wait(60)
        assert threads[0].is_alive()
    # A busy machine may need longer than the block waits for it.
    threads[0].join(60)
    assert not threads[0].is_alive() and set(threads) == {threads[0]}


def test_what_fails_ends_the_samples_and_not_the_block():
    called = threading.Event()

    def log(values):
        called.set()
        raise UserError("The disk is full.")

    with sampled(log, 0.01):
        assert called.wait(60)
        deadline = time.monotonic() + 60
        while "system metrics" in {thread.name for thread in threading.enumerate()}:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_monitor_that_cannot_measure_leaves_the_others(monkeypatch):
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    def fails(self):
        raise OSError("no such file: /proc/net/dev")

    monkeypatch.setattr(NetworkMonitor, "collect_metrics", fails)
    (values,) = taken(1)
    assert "system/cpu_utilization_percentage" in values
    assert not any("network" in name for name in values)


@pytest.mark.parametrize(
    ("on", "every", "seconds"),
    [
        (None, None, system_metrics.INTERVAL),
        ("true", None, system_metrics.INTERVAL),
        ("1", "2.5", 2.5),
        (None, "60", 60.0),
        ("false", None, None),
        ("FALSE", "5", None),
        ("0", None, None),
    ],
)
def test_mlflows_variables_decide(monkeypatch, on, every, seconds):
    for name, value in ((ON, on), (EVERY, every)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert interval() == seconds


@pytest.mark.parametrize(
    ("on", "every", "name"),
    [
        ("yes", "10", ON),
        ("true", "-1", EVERY),
        ("true", "0", EVERY),
        ("true", "", EVERY),
        ("true", "often", EVERY),
        ("1", "nan", EVERY),
        ("1", "inf", EVERY),
    ],
)
def test_odd_values_are_told_by_name(monkeypatch, on, every, name):
    monkeypatch.setenv(ON, on)
    monkeypatch.setenv(EVERY, every)
    with pytest.raises(UserError, match=f"^{name} is '"):
        interval()
