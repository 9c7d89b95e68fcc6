"""A signal waits for the end of a step, but not for long."""

import os
import signal
import time

import pytest

from common import stopping


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)],
)
def test_a_signal_is_noted_and_obeyed_at_the_end(number, error):
    before = signal.getsignal(number)
    done = []
    with pytest.raises(error) as left, stopping.deferred() as stop:
        os.kill(os.getpid(), number)
        done.append(stop.number)
    assert done == [number] and signal.getsignal(number) == before
    assert error is KeyboardInterrupt or left.value.code == 128 + number


def test_a_second_signal_is_obeyed_at_once():
    reached = []
    with pytest.raises(SystemExit), stopping.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        reached.append(2)
    assert reached == [1]


def test_a_step_that_does_not_end_is_left(monkeypatch):
    monkeypatch.setattr(stopping, "GRACE", 0.1)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), stopping.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    assert time.monotonic() - started < 10


def test_without_a_signal_nothing_happens():
    with stopping.deferred() as stop:
        assert stop.number is None
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
