"""The folder of a study: held by one process, what has become of each row, and the rows' own processes."""

import contextlib
import fcntl
import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from .. import stopping
from ..errors import UserError
from ..files import write_json
from .row_starter import started

STATE = "study.json"

PATIENCE = 3.5
"""Seconds that a row has left once its study is about to end without it (`stopping.STUCK` after the signal)."""


class Folder:
    """`state` is what `study.json` holds: `parent_run`, `rows` (fingerprint of a run → `name`, `status`, and `run_id` or
    `reason`), `child` (the latest row's process) and `reported`, what the last report was made of."""

    def __init__(self, path: Path):
        self.path = path
        self.state: dict = {}
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
            # As studies of earlier versions call it.
            self.state["reported"] = self.state.pop("told")

    def save(self) -> None:
        """Write `study.json`, all of it or nothing."""
        write_json(self.path / STATE, self.state)

    def row(self, name: str) -> Path:
        """Where what a row has left lies."""
        return self.path / "runs" / name

    def log(self, name: str) -> Path:
        """What a row's process has said."""
        return self.path / "logs" / f"{name}.log"

    def checkpoints(self, name: str) -> Path:
        """Where a row's checkpoints lie while it lasts."""
        return self.path.resolve() / "checkpoints" / name

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against a second study, once a row that a killed one left behind has ended by itself."""
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

    def run(self, command: Sequence[str], name: str, start=started) -> tuple[int | None, str]:
        """Run a row's process to its end; (exit code or None where it was lost, why it failed). SIGTERM is sent to it when
        this one is stopped.

        command: a script and its arguments. start: `row_starter.started`, or what does the same.
        """
        log = self.log(name)
        with self._child_lock() as file, log.open("ab") as out:
            fcntl.flock(file, fcntl.LOCK_EX)
            before = log.stat().st_size
            # It inherits the lock, and holds it if this process is killed.
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
        said = log.read_bytes()[before:].decode("utf-8", errors="replace")
        return code, reason(code, said)

    def _child_lock(self):
        return (self.path / ".child.lock").open("a")

    def _wait(self, file) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            child = self.state.get("child", {"pid": "?", "name": "a row"})
            print(
                f"Process {child['pid']}, which a killed study left, is still training {child['name']}: waiting for it. "
                f"To go on from its last checkpoint instead: kill {child['pid']}",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)


class _End:
    """The end of a row's process whose study was stopped."""

    def __init__(self, child):
        self._child, self._asked = child, False

    def ask(self) -> None:
        """SIGTERM, once: a second one would cut its end short."""
        if not self._asked:
            self._asked = True
            self._child.terminate()

    def force(self) -> None:
        """SIGKILL where it does not end, from a thread beside the one that waits for it."""
        self.ask()
        time.sleep(PATIENCE)
        self._child.kill()


def reason(code: int | None, said: str) -> str:
    """Why a process failed, in one line: its last `error:`, else the last line that it wrote; "" if it did not fail.

    code: None if nobody knows it, which is no sign of failure.
    """
    if code == 0:
        return ""
    if code is None:
        return "how it ended is not known: the process that had started it was killed"
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # A progress bar that was still there ends with a bracket, and without a new line.
    errors = [found[1] for line in lines if (found := re.search(r"(?:^|\])error: (.+)", line))]
    return (errors or lines or [f"exit code {code}"])[-1][:500]
