"""How long each row of a study takes as a whole, as noted in its folder, and how long the rows that are left will take."""

import time
from collections.abc import Sequence

from ..durations import clock
from .declaration import Row
from .status import Entry, Status


class Clock:
    """Measures rows while they run. The noted time of a row is the sum over all its starts."""

    def __init__(self, status: Status):
        self.status, self.began = status, time.monotonic()
        self._running: dict[str, tuple[Row, float]] = {}
        self._first: float | None = None
        self._busy = 0.0

    @property
    def _noted(self) -> dict[str, float]:
        """Fingerprint of a run → seconds."""
        return self.status.folder.state.setdefault("seconds", {})

    def forget(self, row: Row) -> None:
        """The row starts from its beginning: its noted time is removed."""
        self._noted.pop(self.status.plan(row).key, None)

    def start(self, row: Row) -> None:
        """Call it just before a row's process starts."""
        now = time.monotonic()
        self._first = now if self._first is None else self._first
        self._running[row.name] = row, now

    def stop(self, row: Row) -> None:
        """Call it when a row has ended or was stopped."""
        if row.name not in self._running:
            # Its worker died before it started.
            return
        _, started = self._running.pop(row.name)
        seconds, key = time.monotonic() - started, self.status.plan(row).key
        self._busy += seconds
        self._noted[key] = self._noted.get(key, 0.0) + seconds

    def stop_all(self) -> None:
        """Call it when the study is stopped while rows run."""
        for row, _ in list(self._running.values()):
            self.stop(row)

    def passed(self) -> str:
        """The time since the study started."""
        return clock(time.monotonic() - self.began)

    def left(self, entries: Sequence[Entry]) -> str:
        """The time that the rows that are left will take, if as many run at a time as so far."""
        if any(entry.status == "unchecked" for entry in entries):
            return "unknown"
        now = time.monotonic()
        passed = {name: now - started for name, (_, started) in self._running.items()}
        seconds = self.status.seconds_left(entries, passed)
        if seconds is None:
            return "unknown"
        at_a_time = 1.0
        if self._first is not None and now > self._first:
            at_a_time = max(1.0, (self._busy + sum(passed.values())) / (now - self._first))
        return f"about {clock(seconds / at_a_time)}"
