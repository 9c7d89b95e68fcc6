"""What a run is to tell a store: kept on disk in order, and told in the background, once each, whenever the store can be reached."""

import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import UserError, first_line

JOURNAL, TOLD = "journal.jsonl", "journal.told"

LONGEST_PAUSE = 30.0
"""Seconds between two attempts at a store that cannot be reached."""


class Journal:
    """Entries (JSON objects) in a file that only grows, and how many of them the store has.

    A process that is killed leaves the last entry whole or unfinished; an unfinished one is dropped when the file is opened
    again. One process at a time opens it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = threading.Lock()
        self.entries = []
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
        self.told = min(_number(folder / TOLD), len(self.entries))

    def append(self, entry: dict) -> None:
        """Keep an entry, whole or not at all; UserError where the disk takes no more, or the file was deleted."""
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

    def pending(self) -> list[dict]:
        """What the store does not have yet."""
        return self.entries[self.told :]

    def mark(self, n: int) -> None:
        """Note that the store has n more."""
        told = self.told + n
        part = self.folder / (TOLD + ".part")
        part.write_text(str(told))
        part.replace(self.folder / TOLD)
        self.told = told

    def forget(self) -> None:
        """Note that the store has nothing: all is to be told again."""
        self.mark(-self.told)

    def sync(self) -> None:
        """What was appended outlives a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


class Sender:
    """Tells a journal's entries to a store in a thread of its own, in order, again and again until it succeeds.

    deliver: takes the entries that are told at once; what it is called with may have reached the store before (the
    process was killed, or an answer was lost), so telling twice must be the same as telling once. errors: what it raises
    where the store refuses or cannot be reached; any other exception is raised to the one who appends or waits.
    together: (entry, entry) → whether both may be told at once. say: told of the first failure, and when it has passed.
    gone: those of the errors that no waiting mends; what the store had been told is to be told again, to another.
    """

    def __init__(
        self,
        journal: Journal,
        deliver: Callable[[list[dict]], None],
        errors: tuple[type[Exception], ...],
        together: Callable[[dict, dict], bool] = lambda a, b: False,
        say: Callable[[str], None] = lambda text: None,
        most: int = 200,
        gone: tuple[type[Exception], ...] = (),
    ):
        self.journal, self.problem = journal, None
        self._deliver, self._errors, self._together, self._say, self._most = (
            deliver,
            errors,
            together,
            say,
            most,
        )
        self._changed, self._closing = threading.Condition(), threading.Event()
        self._stopped, self._fault, self._gone = False, None, gone
        self._failing_since = 0.0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, entry: dict) -> None:
        """Keep an entry, and tell it when its turn comes."""
        self._raise()
        self.journal.append(entry)
        with self._changed:
            self._changed.notify_all()

    def close(self, patience: float, at_most: float = math.inf) -> bool:
        """Wait until everything is told; whether it is. Give up once the store has refused or not been reached for `patience`
        seconds on end, and after `at_most` seconds in any case."""
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

    def _raise(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        pause = 0.5
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
            except (*self._errors, *self._gone, OSError) as error:
                if isinstance(error, self._gone):
                    try:
                        self.journal.forget()
                    except OSError as second:
                        # The folder was removed with the store: nothing is left to send.
                        with self._changed:
                            self._fault = second
                            self._changed.notify_all()
                        return
                if self.problem is None or isinstance(error, self._gone) > isinstance(
                    self.problem, self._gone
                ):
                    self._failing_since = time.monotonic()
                    self._say(
                        f"{first_line(error)[:300].rstrip('.')}. What is to be recorded is kept in {self.journal.folder}."
                    )
                self.problem = error
                if self._closing.is_set():
                    time.sleep(0.5)
                else:
                    self._closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            except BaseException as error:
                with self._changed:
                    self._fault = error
                    self._changed.notify_all()
                return
            if self.problem is not None:
                self._say("it answers again.")
            pause, self.problem = 0.5, None
            with self._changed:
                self._changed.notify_all()

    def _next(self) -> list[dict]:
        pending = self.journal.pending()
        group = pending[:1]
        for entry in pending[1 : self._most]:
            if not self._together(group[0], entry):
                break
            group.append(entry)
        return group
