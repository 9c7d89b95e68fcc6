"""What a server does beside answering: in a thread of its own, so that no answer waits for it or fails with it."""

import logging
import queue
import threading
import time
from collections.abc import Callable

MOST = 1000
"""Pieces of work that wait; what comes meanwhile is left out."""

QUIET = 60.0
"""Seconds between two lines in the log that say that something was left out."""

_log = logging.getLogger(__name__)


class Aside:
    """Work in a thread, one piece after another. called: what the log calls it.

    Nothing is raised: what fails, or finds MOST pieces waiting, is left out and the log says so.
    """

    def __init__(self, called: str, most: int = MOST):
        self._called, self._waiting = called, queue.Queue[Callable[[], object]](most)
        self._reported = float("-inf")
        threading.Thread(target=self._work, name=called, daemon=True).start()

    def put(self, work: Callable[[], object]) -> None:
        """Have this done; returns at once."""
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            self._report("too much of it waits")

    def finish(self, seconds: float) -> None:
        """Wait until all is done that was put so far, but not for longer than that."""
        done = threading.Event()
        self.put(done.set)
        done.wait(seconds)

    def _work(self) -> None:
        while True:
            work = self._waiting.get()
            try:
                work()
            except Exception as error:
                self._report(f"{type(error).__name__}: {error}"[:300])
            # It may hold a request, and waiting for the next one may last.
            del work

    def _report(self, reason: str) -> None:
        if time.monotonic() - self._reported > QUIET:
            self._reported = time.monotonic()
            _log.warning("%s: some are left out: %s", self._called, reason)
