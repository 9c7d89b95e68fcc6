import threading
import time

import pytest
import torch

from common.serving import runtime as processors

SERVER = ["/usr/bin/uvicorn", "--port", "5001"]


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


@pytest.mark.parametrize(
    ("cores", "processes", "each", "at_once"),
    [(4, 2, "1", 2), (4, 8, "1", 1), (4, 1, "2", 2), (2, 1, "8", 1), (3, 1, None, 3)],
)
def test_requests_take_turns_even_when_one_fails(cores, processes, each, at_once, monkeypatch):
    monkeypatch.setattr(processors, "cores", lambda: cores)
    processors.cores_of_process.cache_clear()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if each:
        monkeypatch.setenv("OMP_NUM_THREADS", each)
    before = torch.get_num_threads()
    model = Slow()
    shared = processors.share_cores(model, [*SERVER, "--workers", str(processes)])
    model.broken = True
    try:
        for _ in range(at_once + 1):
            with pytest.raises(ValueError):
                model()
        # Alone, it takes what there is, or what it was told.
        assert torch.get_num_threads() == min(int(each or cores), shared.count)
    finally:
        torch.set_num_threads(before)
        processors.cores_of_process.cache_clear()
    model.broken = False
    threads = [threading.Thread(target=model) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert model.most == at_once and shared.free == shared.count == max(1, cores // processes)


def test_who_comes_while_others_wait_takes_a_part():
    cores = processors.Cores(4)
    assert cores.take() == 4
    taken = []
    threads = [threading.Thread(target=lambda: taken.append(cores.take())) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(cores._waiting) < 2:
        time.sleep(0.001)
    assert not taken
    cores.give(4)
    for thread in threads:
        thread.join(10)
    assert sorted(taken) == [2, 2] and cores.free == 0


def test_who_waits_longest_is_next():
    cores = processors.Cores(1)
    cores.take()
    order = []

    def turn(number):
        taken = cores.take()
        order.append(number)
        cores.give(taken)

    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=turn, args=[number]))
        threads[-1].start()
        while len(cores._waiting) <= number:
            time.sleep(0.001)
    cores.give(1)
    for thread in threads:
        thread.join(10)
    assert order == list(range(8)) and cores.free == 1


def test_fixed_numbers_of_threads_are_few_and_near_to_what_is_taken():
    assert [processors.Cores(n).parts for n in (1, 2, 4, 16, 64)] == [
        (1,),
        (1, 2),
        (1, 2, 4),
        (1, 4, 16),
        (1, 8, 64),
    ]
    assert processors.Cores(4, 3).parts == (3,) and processors.Cores(2, 3).parts == (2,)


def test_nothing_is_changed_outside_of_a_server():
    model = Slow()
    assert processors.share_cores(model, ["pytest"]) is None
    assert not model._forward_hooks and not model._forward_pre_hooks
