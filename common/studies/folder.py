"""The folder of a study: its lock, the status of each row, and the rows' processes."""

import contextlib
import fcntl
import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from .. import stopping
from ..errors import UserError
from ..files import write_json
from .row_starter import Process, Start, started

STATE = "study.json"

PATIENCE = 3.5
"""Seconds between SIGTERM and SIGKILL for a row whose study is about to end (`stopping.STUCK` after the signal)."""


class Folder:
    """`state` is what `study.json` holds: `parent_run`, `rows` (fingerprint of a run → `name`, `status`, and `run_id` or
    `reason`), `child` (the latest row's process) and `reported`, what the last report was made from."""

    def __init__(self, path: Path):
        self.path = path
        self.state: dict[str, Any] = {}
        self.load()

    def load(self) -> None:
        """Read `study.json` again."""
        self.state, file = {"rows": {}}, self.path / STATE
        try:
            self.state |= json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise UserError(
                f"{file} cannot be read: {error.strerror}; choose another --output_dir."
            ) from None
        except ValueError:
            raise UserError(
                f"{file} is damaged: remove it; the finished runs are in MLflow and are found again."
            ) from None
        if "told" in self.state:
            # Earlier versions used this name.
            self.state["reported"] = self.state.pop("told")

    def save(self) -> None:
        """Write `study.json`, completely or not at all."""
        write_json(self.path / STATE, self.state)

    def row(self, name: str) -> Path:
        """The folder of what a row has left."""
        return self.path / "runs" / name

    def log(self, name: str) -> Path:
        """The output of a row's process."""
        return self.path / "logs" / f"{name}.log"

    def checkpoints(self, name: str) -> Path:
        """The folder of a row's checkpoints while it runs."""
        return self.path.resolve() / "checkpoints" / name

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder against a second study, once a row that a killed study left running has ended by itself."""
        try:
            for folder in (self.path / "runs", self.path / "logs"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; choose another --output_dir."
            ) from None
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.path} is in use by another process of this study; wait for it, or stop it first."
            ) from None
        try:
            with self._child_lock() as file:
                self._wait(file)
            yield
        finally:
            lock.release()

    def run(self, command: Sequence[str], name: str, start: Start = started) -> tuple[int | None, str]:
        """Run a row's process to its end; (exit code or None if it is unknown, why it failed). If this process is stopped, it
        sends SIGTERM to the row's.

        command: a script and its arguments. start: `row_starter.started`, or `Starter.start`.
        """
        log = self.log(name)
        with self._child_lock() as file, log.open("ab") as out:
            fcntl.flock(file, fcntl.LOCK_EX)
            before = log.stat().st_size
            # It inherits the lock, and keeps it if this process is killed.
            child = start(command, out, file)
            end = _End(child)
            with stopping.farewell(end.force):
                try:
                    self.state["child"] = {"pid": child.pid, "name": name}
                    self.save()
                    code = child.wait()
                except BaseException:
                    end.ask()
                    child.wait()
                    raise
        return code, reason(code, output(log, before))

    def _child_lock(self) -> TextIO:
        return (self.path / ".child.lock").open("a")

    def _wait(self, file: TextIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            child = self.state.get("child", {"pid": "?", "name": "a row"})
            print(
                f"Process {child['pid']} of a study that was killed is still training {child['name']}: waiting for it. "
                f"To continue from its last checkpoint instead: kill {child['pid']}",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)


class _End:
    """Ends a row's process when its study is stopped."""

    def __init__(self, child: Process):
        self._child, self._asked = child, False

    def ask(self) -> None:
        """Send SIGTERM, once: a second one would interrupt the row's own end."""
        if not self._asked:
            self._asked = True
            self._child.terminate()

    def force(self) -> None:
        """Send SIGKILL if it does not end; called from another thread than the one that waits for it."""
        self.ask()
        time.sleep(PATIENCE)
        self._child.kill()


def output(log: Path, start: int) -> str:
    """What a log holds from this byte on."""
    return log.read_bytes()[start:].decode("utf-8", errors="replace")


def reason(code: int | None, text: str) -> str:
    """Why a process failed, in one line: its last `error:`, else the last line that it wrote; "" if it did not fail.

    code: None if it is unknown; the process may have succeeded. text: what the process wrote.
    """
    if code == 0:
        return ""
    if code is None:
        return "its exit code is unknown: the process that had started it was killed"
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # An unfinished progress bar ends with a bracket, without a line break.
    errors = [found[1] for line in lines if (found := re.search(r"(?:^|\])error: (.+)", line))]
    return (errors or lines or [f"exit code {code}"])[-1][:500]
