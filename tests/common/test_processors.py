import threading
import time

import pytest
import torch

from common import processors

SERVER = ["/usr/bin/uvicorn", "--port", "5001"]


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        (SERVER, 1),
        ([*SERVER, "--workers", "3", "app:app"], 3),
        (["pytest", "--workers", "3"], None),
        ([], None),
    ],
)
def test_workers_are_read_off_the_servers_command_line(argv, count, monkeypatch):
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert processors.workers(argv) == count


@pytest.mark.parametrize(("quota", "count"), [("max 100000", 8), ("150000 100000", 1), ("300000 100000", 3)])
def test_a_containers_quota_counts(quota, count, monkeypatch, tmp_path):
    monkeypatch.setattr(processors, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    processors.QUOTA.write_text(quota)
    assert processors.cores() == count


class Slow(torch.nn.Module):
    now, most, broken = 0, 0, False

    def forward(self):
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(0.02)
        self.now -= 1
        if self.broken:
            raise ValueError


@pytest.mark.parametrize(("cores", "processes", "at_once"), [(4, 2, 2), (4, 8, 1)])
def test_requests_take_turns_even_when_one_fails(cores, processes, at_once, monkeypatch):
    monkeypatch.setattr(processors, "cores", lambda: cores)
    monkeypatch.setattr(processors, "_TURNS", {})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    model = Slow()
    assert processors.share_cores(model, [*SERVER, "--workers", str(processes)]) == at_once
    model.broken = True
    for _ in range(at_once + 1):
        with pytest.raises(ValueError):
            model()
    model.broken = False
    threads = [threading.Thread(target=model) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert model.most == at_once


def test_nothing_is_changed_outside_of_a_server():
    model = Slow()
    assert processors.share_cores(model, ["pytest"]) is None
    assert not model._forward_hooks and not model._forward_pre_hooks
