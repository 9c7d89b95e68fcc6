"""A training that is told to stop does so at the next step, when its checkpoint is written."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

GRACE = 8.0
"""Seconds until it leaves wherever it is; the last checkpoint then remains."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether a signal has come, and which."""

    number: int | None = None

    def leave(self) -> None:
        """Leave as the signal would have it: KeyboardInterrupt, or SystemExit with 128 + its number."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.number)


@contextmanager
def deferred(enabled: bool = True) -> Iterator[Stop]:
    """Note the first SIGINT, SIGTERM or SIGHUP instead of leaving; a second one, or GRACE seconds, leave.

    Only where signals arrive: in the main thread. Several processes would each stop at a step of their own, so they are not
    `enabled`.
    """
    stop = Stop()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number, frame) -> None:
        if stop.number is not None:
            stop.leave()
        stop.number = number
        print("\nStopping after this step; again to stop at once.", file=sys.stderr, flush=True)
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    def expire(number, frame) -> None:
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
