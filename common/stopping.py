"""Leaving on a signal: training after its next step, with its checkpoint written; every script within LIMIT seconds.

Python runs its signal handlers in the main thread, between two steps of its interpreter. If that thread is in a native
call, which may last minutes on a busy machine, a second thread ends the process in its place.

Its exit code says the signal, whatever keeps it or fails on its way out; not if no thread of Python gets its turn (LAST).
"""

import atexit
import contextlib
import faulthandler
import functools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

GRACE = 8.0
"""Seconds after which training ends in the middle of a step; the last checkpoint remains."""

STUCK = 9.0
"""Seconds after a signal when a main thread that has not begun to leave counts as stuck."""

LIMIT = 13.0
"""Seconds after a signal when the process has ended in any case."""

LAST = 2.0
"""Seconds after LIMIT when C ends a process in which no thread of Python got its turn; its exit code is 1, as C chooses it."""

AT_ONCE = 1.0
"""Seconds that a stuck main thread keeps after a second signal."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_leaving = threading.Event()
_numbers: list[int] = []
"""Of the signals that the main thread obeyed."""

_farewells: list[Callable[[], str | None]] = []
_sockets: list[socket.socket] = []


def leave(number: int) -> NoReturn:
    """Raise what the signal stands for: KeyboardInterrupt, or SystemExit with 128 + its number."""
    _numbers.append(number)
    _leaving.set()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


@contextmanager
def farewell(last: Callable[[], str | None]) -> Iterator[None]:
    """Within this block, have `watched` call `last` before it ends a stuck process.

    last: called in a thread of its own, while the main thread may go on; cut off at LIMIT. What it returns is printed.
    """
    _farewells.append(last)
    try:
        yield
    finally:
        _farewells.remove(last)


@contextmanager
def watched() -> Iterator[None]:
    """End the process with 128 + number after one of SIGNALS if the main thread does not end it: STUCK seconds later if it
    has not begun to leave, else after LIMIT. Files are then as after SIGKILL, except for what the farewells did.

    Only in the main thread, with handlers set for the signals. The end of the block ends the watch if no signal has come.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _leaving.clear()
    # Before the libraries register what they do at the end, so after that.
    atexit.register(_end)
    # C code writes to it at once, even while the main thread is busy.
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    _sockets.append(theirs)
    threading.Thread(target=_watch, args=(ours,), name="watch", daemon=True).start()
    try:
        yield
    finally:
        # A process that is leaving is watched until it has ended.
        if not _leaving.is_set():
            atexit.unregister(_end)
            signal.set_wakeup_fd(before)
            _sockets.remove(theirs)
            theirs.close()


def _end() -> None:
    """End a process that leaves before Python takes its interpreter apart, which may last, and which no thread survives that
    could bound it. An error on the way out has been printed."""
    if _leaving.is_set():
        _flush()
        os._exit(128 + _numbers[-1])


def _forget() -> None:
    # A forked process would write to the same socket: its signals would end its parent.
    if _sockets:
        signal.set_wakeup_fd(-1)
        _sockets.clear()
        _farewells.clear()


os.register_at_fork(after_in_child=_forget)


def _watch(socket_: socket.socket) -> None:
    number = _received(socket_)
    if number is None:
        return
    end = time.monotonic() + LIMIT
    # In C, in case no other Python thread gets its turn again.
    faulthandler.dump_traceback_later(LIMIT + LAST, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115
    if _received(socket_, STUCK):
        end = min(end, time.monotonic() + LIMIT - STUCK + AT_ONCE)
        time.sleep(AT_ONCE)
    lines: list[str] = []
    _within(end - time.monotonic(), *(functools.partial(_part, last, lines) for last in reversed(_farewells)))
    if _leaving.is_set():
        time.sleep(max(0.0, end - time.monotonic()))
    # The reader of the output may have stopped reading.
    _within(0.5, functools.partial(_report, lines))
    os._exit(128 + number)


def _received(socket_: socket.socket, seconds: float | None = None) -> int | None:
    """The next of SIGNALS; None if none comes in so many seconds or, without a bound, when the watch ends."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        socket_.settimeout(None if end is None else max(0.001, end - time.monotonic()))
        try:
            number = socket_.recv(1)
        except TimeoutError:
            return None
        if not number:
            if end is not None:
                time.sleep(max(0.0, end - time.monotonic()))
            return None
        if number[0] in SIGNALS:
            return number[0]
    return None


def _within(seconds: float, *calls: Callable[[], None]) -> None:
    """Make calls side by side, and wait up to so many seconds for their ends."""
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _part(last: Callable[[], str | None], lines: list[str]) -> None:
    try:
        line = last()
    except Exception as error:
        line = f"{type(error).__name__}: {error}"
    if line:
        lines.append(line)


def _report(lines: list[str]) -> None:
    text = "\n".join(["", "Left in the middle of a computation that did not end.", *lines, ""])
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode(errors="replace"))
    _flush()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


class Stop:
    """Whether a signal has come, and which."""

    number: int | None = None

    def leave(self) -> NoReturn:
        """Raise what the signal stands for; only after one has come."""
        assert self.number is not None
        leave(self.number)


@contextmanager
def deferred(enabled: bool = True) -> Iterator[Stop]:
    """Note the first SIGINT, SIGTERM or SIGHUP instead of leaving; leave at a second one, or after GRACE seconds.

    Only in the main thread, where signals arrive. enabled: False for several processes, which would each stop at a different
    step.
    """
    stop = Stop()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.number is not None:
            stop.leave()
        stop.number = number
        print("\nStopping after this step; again to stop at once.", file=sys.stderr, flush=True)
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    def expire(number: int, frame: FrameType | None) -> None:
        stop.leave()

    before = {number: signal.signal(number, note) for number in SIGNALS}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, expire)
    try:
        yield stop
        if stop.number is not None:
            stop.leave()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
