"""A signal waits for the end of a step, but not for long."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from common import stopping
from common.cli import guarded
from common.paths import ROOT


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


STUCK = """
import ctypes, os, pathlib, signal, sys, threading
sys.path.insert(0, {root!r})
from common import stopping
from common.cli import guarded

def block():
    # Waits in C for good, without Python's lock; a signal does not end it.
    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    pathlib.Path("stuck").touch()
    lock(mutex)

def last():
    pathlib.Path("last").touch()
    return "to go on: again"

stopping.STUCK, stopping.LIMIT = {limits}

def work():
{body}

sys.exit(guarded(work))
"""


@pytest.fixture
def stuck(tmp_path):
    """Start a program that gets stuck in `work`; gives its process once it is."""
    started = []

    def start(body, limits=(1.0, 3.0)):
        body = textwrap.indent(textwrap.dedent(body), "    ")
        program = STUCK.format(root=str(ROOT), body=body, limits=limits)
        one = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(one)
        wait_for(tmp_path / "stuck", one)
        return one

    yield start
    for one in started:
        one.kill()


def wait_for(file, process, seconds=240):
    """Until a program says by a file that it is where the test wants it."""
    end = time.monotonic() + seconds
    while not file.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
    time.sleep(0.2)


def ended(process, bound=15.0):
    """(exit code, stdout, stderr) of a process that ends within the promised time."""
    begun = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < bound
    return process.returncode, out, err


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code", "twice"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False), (signal.SIGHUP, 129, True)],
)
def test_a_main_thread_that_is_stuck_in_a_native_call_is_left(stuck, tmp_path, number, code, twice):
    body = "print('kept', end='')\nwith stopping.deferred(), stopping.farewell(last):\n    block()"
    one = stuck(body, (stopping.STUCK, stopping.LIMIT))
    one.send_signal(number)
    if twice:
        # A second one leaves at once.
        time.sleep(0.5)
        one.send_signal(number)
    left, out, err = ended(one, 7.0 if twice else 15.0)
    assert (left, out) == (code, "kept") and "to go on: again" in err and "Traceback" not in err
    assert (tmp_path / "last").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        # What is done last, does not end; a second farewell fails.
        "with stopping.farewell(block), stopping.farewell(lambda: 1 / 0):\n    block()",
        # It unwinds, and gets stuck then.
        "try:\n    pathlib.Path('stuck').touch()\n    threading.Event().wait()\nfinally:\n    block()",
        # It unwinds; a thread keeps the process.
        "threading.Thread(target=block).start()\nthreading.Event().wait()",
        # It unwinds, and something fails then.
        "try:\n    pathlib.Path('stuck').touch()\n    threading.Event().wait()\nfinally:\n    [].pop()",
        # It unwinds; the interpreter does not come apart.
        """
        import time
        class Kept:
            def __del__(self, wait=time.sleep):
                wait(60)
        sys.kept = Kept()
        pathlib.Path('stuck').touch()
        threading.Event().wait()
        """,
    ],
)
def test_a_process_ends_in_time_and_with_the_signals_code_whatever_keeps_it(stuck, body):
    one = stuck(body)
    one.send_signal(signal.SIGTERM)
    assert ended(one)[0] == 143


@pytest.mark.slow
def test_what_was_registered_for_the_end_is_done_and_what_was_printed_arrives(stuck):
    one = stuck("""
        import atexit
        atexit.register(print, "registered")
        pathlib.Path("stuck").touch()
        threading.Event().wait()
    """)
    one.send_signal(signal.SIGTERM)
    assert ended(one)[:2] == (143, "registered\n")


def test_a_forked_process_does_not_stop_the_one_that_forked_it(stuck):
    one = stuck("""
        pid = os.fork()
        if pid == 0:
            pathlib.Path("stuck").touch()
            signal.pause()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        threading.Event().wait(4)
    """)
    children = psutil.Process(one.pid).children()
    assert len(children) == 1
    children[0].send_signal(signal.SIGTERM)
    out, err = one.communicate(timeout=60)
    assert (one.returncode, out.strip()) == (0, "143"), err


def test_a_watch_that_was_not_needed_leaves_nothing():
    before = threading.active_count()
    handlers = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    try:
        assert guarded(lambda: None) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    kept = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(kept)
    assert kept == -1
    end = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)
