"""What a run logs: kept on disk in order, and sent to a store in the background, once each, whenever it can be reached."""

import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..atomic import atomic_write
from ..errors import UserError, first_line

JOURNAL = "journal.jsonl"

SENT = "journal.sent"
"""Holds how many entries the store has."""

_FORMER = "journal.told"
"""The same, in folders that an earlier version left."""

Entry = dict[str, Any]
"""A JSON object."""

LONGEST_PAUSE = 30.0
"""Seconds between two attempts at a store that cannot be reached."""


class Journal:
    """Entries in a file that only grows, and how many of them the store has.

    A killed process leaves the last entry whole or unfinished; an unfinished one is dropped when the file is opened again.
    One process at a time may open it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = threading.Lock()
        self.entries: list[Entry] = []
        try:
            self._file = (folder / JOURNAL).open("a+b", buffering=0)
            self._file.seek(0)
            end = 0
            for line in self._file.read().splitlines(keepends=True):
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                self.entries.append(entry)
                end += len(line)
            self._file.truncate(end)
        except OSError as error:
            raise UserError(f"{folder / JOURNAL} cannot be written: {error.strerror}.") from None
        held = SENT if (folder / SENT).exists() else _FORMER
        self.sent = min(_number(folder / held), len(self.entries))

    def append(self, entry: Entry) -> None:
        """Keep an entry, whole or not at all; UserError if the disk is full or the file was deleted."""
        if os.fstat(self._file.fileno()).st_nlink == 0:
            raise UserError(
                f"{self.folder} was deleted while it was in use: what was kept in it is lost. Start again."
            )
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            end = self._file.seek(0, os.SEEK_END)
            try:
                written = self._file.write(line)
                if written < len(line):
                    written += self._file.write(line[written:])
            except OSError as error:
                self._file.truncate(end)
                raise UserError(
                    f"{self.folder / JOURNAL} cannot be written: {error.strerror}. What is in it is whole: make room and go on."
                ) from None
            self.entries.append(entry)

    def pending(self) -> list[Entry]:
        """The entries that the store does not have yet."""
        return self.entries[self.sent :]

    def mark(self, n: int) -> None:
        """Note that the store has n more."""
        sent = self.sent + n
        with atomic_write(self.folder / SENT) as part:
            part.write_text(str(sent))
        self.sent = sent

    def forget(self) -> None:
        """Note that the store has nothing: everything is sent again."""
        self.mark(-self.sent)

    def sync(self) -> None:
        """Write to the disk what was appended, so that it survives a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


class Sender:
    """Sends a journal's entries to a store in a thread of its own, in order, again and again until it succeeds.

    deliver: takes the entries that are sent together. They may have reached the store before (the process was killed, or an
    answer was lost), so sending twice must give the same as sending once. errors: what it raises if the store refuses or
    cannot be reached; any other exception is raised to the caller of `append` or `close`. together: (entry, entry) →
    whether both may be sent at once. report: called with a message at the first failure and when the store answers again.
    gone: errors that waiting does not solve; everything that was sent is sent again, to another run.
    """

    def __init__(
        self,
        journal: Journal,
        deliver: Callable[[list[Entry]], None],
        errors: tuple[type[Exception], ...],
        together: Callable[[Entry, Entry], bool] = lambda a, b: False,
        report: Callable[[str], None] = lambda text: None,
        most: int = 200,
        gone: tuple[type[Exception], ...] = (),
    ):
        self.journal = journal
        self.problem: Exception | None = None
        """Why the last attempt failed; None if it did not."""
        self._deliver, self._errors, self._together = deliver, errors, together
        self._report, self._most, self._gone = report, most, gone
        self._changed, self._closing = threading.Condition(), threading.Event()
        self._stopped = False
        self._fault: BaseException | None = None
        self._failing_since = 0.0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, entry: Entry) -> None:
        """Keep an entry, and send it when its turn comes."""
        self._raise()
        self.journal.append(entry)
        with self._changed:
            self._changed.notify_all()

    def close(self, patience: float, at_most: float = math.inf) -> bool:
        """Wait until everything is sent; whether it is.

        Give up once the store has refused or not been reached for `patience` seconds on end, and after `at_most` seconds in
        any case.
        """
        started = time.monotonic()
        self._failing_since = max(self._failing_since, started)
        # An attempt that is due later is made now.
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
            while self.journal.pending() and self._fault is None:
                now = time.monotonic()
                waited = now - self._failing_since >= patience or isinstance(self.problem, self._gone)
                if now - started >= at_most or self.problem and waited:
                    break
                self._changed.wait(0.1)
        self._stopped = True
        self._raise()
        return not self.journal.pending()

    def stop(self, seconds: float) -> None:
        """End the thread without sending what is left; waits for it so long."""
        self._stopped = True
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(seconds)

    def _raise(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        pause, expected = 0.5, (*self._errors, *self._gone, OSError)
        while not self._stopped:
            with self._changed:
                self._changed.wait_for(lambda: self.journal.pending() or self._closing.is_set())
                if not self.journal.pending():
                    return
            group = self._next()
            try:
                self.journal.sync()
                self._deliver(group)
                self.journal.mark(len(group))
            except BaseException as error:
                if not isinstance(error, Exception) or not isinstance(error, expected):
                    self._end_with(error)
                    return
                if not self._failed(error):
                    return
                if self._closing.is_set():
                    time.sleep(0.5)
                else:
                    self._closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if self.problem is not None:
                self._report("it answers again.")
            pause, self.problem = 0.5, None
            with self._changed:
                self._changed.notify_all()

    def _failed(self, error: Exception) -> bool:
        """Note a failed attempt, and report the first one; whether another is to be made."""
        if isinstance(error, self._gone):
            try:
                self.journal.forget()
            except OSError as second:
                # The folder was removed with the store: nothing is left to send.
                self._end_with(second)
                return False
        if self.problem is None or isinstance(error, self._gone) > isinstance(self.problem, self._gone):
            self._failing_since = time.monotonic()
            self._report(
                f"{first_line(error)[:300].rstrip('.')}. What is to be recorded is kept in {self.journal.folder}."
            )
        self.problem = error
        return True

    def _end_with(self, fault: BaseException) -> None:
        with self._changed:
            self._fault = fault
            self._changed.notify_all()

    def _next(self) -> list[Entry]:
        """The entries that are sent together next."""
        pending = self.journal.pending()
        group = pending[:1]
        for entry in pending[1 : self._most]:
            if not self._together(group[0], entry):
                break
            group.append(entry)
        return group
