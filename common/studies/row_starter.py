"""Processes of rows that begin with everything imported: a process that has imported all and run nothing forks one for each.

Imports are most of what starting a row costs. The process that holds them opens no store, reads no data and starts no
thread of its own, so that nothing passes from one row to the next, and its memory does not grow: each row is a process as
it would be without. Linux only; where it cannot be had, rows start as any program does.
"""

import contextlib
import gc
import hashlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO

from ..paths import ROOT

SCRIPT = ROOT / "scripts" / "_row_starter.py"

PRELOADED = (
    "common.training.fit",
    "common.serving.extractive_qa",
    "common.serving.classification",
    "common.serving.generative_qa",
    "common.serving.stored_code",
    "transformers.hf_argparser",
    "mlflow.pyfunc.scoring_server",
    "mlflow.store.tracking.sqlalchemy_store",
    "sqlalchemy.dialects.sqlite",
    "alembic.command",
    "git",
    "PIL.PngImagePlugin",
)
"""What every row imports; what one imports beside that costs it time, and nothing else."""

_LONGEST = 2**17
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def started(command: Sequence[str], log: IO, lock: IO) -> subprocess.Popen:
    """A row's process, started as any program is: its output goes to the log, and it holds the lock while it lives."""
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        # In a session of its own, so that Ctrl-C reaches it once, from the study.
        start_new_session=True,
        pass_fds=[lock.fileno()],
    )


class Starter:
    """Starts rows one after another, with their imports done where that can be. A context, in which it keeps them."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._row: Forked | None = None
        self._ready = False

    def __enter__(self) -> "Starter":
        if _possible():
            self._open()
        return self

    def __exit__(self, *_) -> None:
        self._close()

    def ready(self) -> None:
        """Wait until the imports are done, however that ends."""
        if self._process and (self._code != _code() or self._process.poll() is not None or self._busy):
            # A row computes with the code that its fingerprint is made of.
            self._close()
            self._open()
        if self._process and not self._ready:
            self._ready = _receive(self._socket).get("ready", False)

    def start(self, command: Sequence[str], log: IO, lock: IO):
        """As `started`: what it gives has `pid`, `wait` and `terminate` too. `wait` gives None where the exit code was lost."""
        self.ready()
        if self._ready:
            # A row that is stopped before its process is known would go on.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
            try:
                socket.send_fds(
                    self._socket, [json.dumps(list(command)).encode()], [log.fileno(), lock.fileno()]
                )
                self._ready = False
                if pid := _receive(self._socket).get("pid"):
                    self._row = Forked(pid, self._socket)
                    return self._row
            except OSError:
                pass
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._close()
        return started(command, log, lock)

    @property
    def _busy(self) -> bool:
        return self._row is not None and self._row.code is None

    def _open(self) -> None:
        self._code, self._row, self._ready = _code(), None, False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                # What it cannot import a row that starts without it cannot either, and that one says so in its log.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )

    def _close(self) -> None:
        if self._process:
            self._socket.close()
            if not self._busy:
                self._process.kill()
                self._process.wait()
            # Else it ends once its row has ended.
            self._process, self._ready = None, False


class Forked:
    """A row's process that `serve` has forked."""

    def __init__(self, pid: int, socket_: socket.socket):
        self.pid, self.code = pid, None
        self._socket, self._file = socket_, os.pidfd_open(pid)

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._file, signal.SIGTERM)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._file, signal.SIGKILL)

    def wait(self) -> int | None:
        """The exit code, negative for a signal; None if nobody is left who knows it."""
        self.code = _receive(self._socket).get("code")
        # It goes on alone if the process that forked it has died.
        select.select([self._file], [], [])
        return self.code


def serve(file: int) -> None:
    """Import what rows import, then fork a process for each command that comes; returns in that process, which is to run
    `sys.argv`.

    file: descriptor of a socket. Each row: "ready" is said, a command comes with the descriptors of its log and its lock,
    the process's id is said, and its exit code.
    """
    with socket.socket(fileno=file) as ours:
        for name in PRELOADED:
            importlib.import_module(name)
        _refuse_threads()
        # What is imported stays; a collector that looks at it would copy its pages.
        gc.collect()
        gc.freeze()
        while _say(ours, ready=True):
            message, files, _, _ = socket.recv_fds(ours, _LONGEST, 2)
            if not message:
                break
            if (pid := os.fork()) == 0:
                _begin(json.loads(message), *files)
                return
            for inherited in files:
                os.close(inherited)
            _say(ours, pid=pid)
            _, status = os.waitpid(pid, 0)
            _say(ours, code=os.waitstatus_to_exitcode(status))
    sys.exit()


def _begin(command: list[str], log: int, lock: int) -> None:
    """Make of a process that was just forked what `started` makes of one; the lock stays open."""
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # Python seeds itself again, the others do not.
    import numpy
    import torch

    numpy.random.seed()
    torch.default_generator.seed()
    sys.argv[:] = command


def _refuse_threads() -> None:
    """A process that is forked has none of the threads, and holds the locks that they held; a GPU knows only who asked for it."""
    import torch

    if threading.active_count() > 1 or torch.cuda.is_initialized():
        raise RuntimeError("an import has started threads or a GPU")


def _say(ours: socket.socket, **said) -> bool:
    """Whether anyone listens."""
    try:
        ours.send(json.dumps(said).encode())
    except OSError:
        return False
    return True


def _receive(theirs: socket.socket) -> dict:
    """What is said next; empty when the process has died."""
    try:
        said = theirs.recv(_LONGEST)
    except OSError:
        return {}
    return json.loads(said) if said else {}


def _possible() -> bool:
    """Elsewhere than on Linux, what is forked cannot use every library."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _code() -> dict[str, str]:
    """What a row would import of the project: file → sha256."""
    files = [file for folder in ("common", "scripts") for file in (ROOT / folder).rglob("*.py")]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
