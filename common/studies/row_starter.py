"""Starts the processes of rows with everything imported: a process that has imported it and run nothing forks them.

Imports are most of the time that the start of a row takes. The process that holds them, and knows which packages are
installed, opens no store, reads no data and starts no threads, so that nothing passes from one row to the next and its memory
does not grow: a forked row computes what a row computes that starts by itself. Linux only; elsewhere rows start as ordinary
processes.
"""

import atexit
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
from collections.abc import Callable, Sequence
from typing import IO, Any, Protocol

from ..cli import importing
from ..paths import ROOT

SCRIPT = ROOT / "scripts" / "_row_starter.py"

PRELOADED = (
    "common.training.command_line",
    "common.training.fit",
    "common.reports.confidence_figures",
    "common.reports.run_figures",
    "common.reports.study_curves",
    "common.serving.extractive_qa",
    "common.serving.classification",
    "common.serving.generative_qa",
    "common.serving.stored_code",
    "common.tasks.extractive_qa.work",
    "common.tasks.extractive_qa.packing",
    "common.tasks.classification.work",
    "common.tasks.generative_qa.work",
    "transformers.hf_argparser",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "peft.utils.transformers_weight_conversion",
    "torch.utils.serialization",
    "mlflow.models.display_utils",
    "mlflow.pyfunc.scoring_server",
    "mlflow.pyfunc.utils.environment",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.utils.search_logged_model_utils",
    "sqlalchemy.dialects.sqlite",
    "alembic.command",
    "alembic.config",
    "git",
    "pandas.core.methods.to_dict",
    "pandas.io.formats.csvs",
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.PpmImagePlugin",
)
"""What every row imports. Further imports cost a row time, and have no other effect."""

_LONGEST = 2**17
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Process(Protocol):
    """A row's process."""

    @property
    def pid(self) -> int:
        """Its id."""

    def wait(self) -> int | None:
        """Wait for its end; the exit code, negative for a signal; None if it is unknown."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


Start = Callable[[Sequence[str], IO[Any], IO[Any]], Process]
"""(a script and its arguments, log, lock) → its process. Output goes to the log; the lock is held until the process ends."""


def started(command: Sequence[str], log: IO[Any], lock: IO[Any]) -> Process:
    """A row's process, started as an ordinary one."""
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        # In its own session, so that Ctrl-C reaches it once, from the study.
        start_new_session=True,
        pass_fds=[lock.fileno()],
    )


class Starter:
    """Starts rows one after another, with their imports done where that is possible. A context: its process ends with it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._row: Forked | None = None
        self._opened = self._ready = False

    def open(self) -> None:
        """Begin the imports, once, in a process of their own."""
        if not self._opened:
            self._opened = True
            if _possible():
                self._open()

    def __enter__(self) -> "Starter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def ready(self) -> None:
        """Wait until the imports are done or have failed."""
        self.open()
        if self._process and (self._code != _code() or self._process.poll() is not None or self._busy):
            # A row must compute with the code that its fingerprint covers.
            self._close()
            self._open()
        if self._process and not self._ready:
            self._ready = _receive(self._socket).get("ready", False)

    def start(self, command: Sequence[str], log: IO[Any], lock: IO[Any]) -> Process:
        """A row's process, forked with its imports done where that is possible."""
        self.ready()
        if self._ready:
            # A row that is stopped before its process is known would continue.
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
                # If an import fails here, it fails in the row too, whose log then holds the error.
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
            # Otherwise it ends after its row.
            self._process, self._ready = None, False


class Forked:
    """A row's process that `serve` has forked."""

    def __init__(self, pid: int, socket_: socket.socket):
        self.pid = pid
        self.code: int | None = None
        self._socket, self._file = socket_, os.pidfd_open(pid)

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._file, signal.SIGTERM)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._file, signal.SIGKILL)

    def wait(self) -> int | None:
        """Wait for its end; the exit code, negative for a signal; None if the process that forked it has died."""
        self.code = _receive(self._socket).get("code")
        # It continues alone if the process that forked it has died.
        select.select([self._file], [], [])
        return self.code


def serve(file: int) -> None:
    """Import what rows import, then fork a process for each command that is received; returns in that process, which then
    runs `sys.argv`.

    file: descriptor of a socket. For each row, "ready" is sent, a command is received with the descriptors of its log and
    its lock, and the process's id and its exit code are sent.
    """
    with socket.socket(fileno=file) as ours:
        # The garbage collector would also copy the pages of imported objects by looking at them.
        with importing():
            for name in PRELOADED:
                importlib.import_module(name)
            from ..serving.model_logging import look_at_packages
            from ..serving.packaging import needed_modules

            look_at_packages()
            # Every module is read and parsed for what it imports; a row that stores a model then has it at hand.
            needed_modules(name.removeprefix("common.") for name in PRELOADED if ".serving." in name)
            # What stays is what a row's process begins with.
            gc.collect()
        _refuse_threads()
        while _send(ours, ready=True):
            message, files, _, _ = socket.recv_fds(ours, _LONGEST, 2)
            if not message:
                break
            if (pid := os.fork()) == 0:
                _begin(json.loads(message), *files)
                return
            for inherited in files:
                os.close(inherited)
            _send(ours, pid=pid)
            _, status = os.waitpid(pid, 0)
            _send(ours, code=os.waitstatus_to_exitcode(status))
    sys.exit()


def _begin(command: list[str], log: int, lock: int) -> None:
    """Give a process that was just forked the state of one that `started` starts; the lock stays open."""
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # Python's generator seeds itself after a fork; these do not.
    import numpy
    import torch

    numpy.random.seed()
    torch.default_generator.seed()
    sys.argv[:] = command


def leave_after(program: Callable[[], object]) -> None:
    """Run a program and end the process as Python does, but leave what was imported to the system: Python would take all of it
    apart, and each page that this touches is copied from the process that has forked this one.

    Returns never; it raises what else than an `Exception` or `SystemExit` ends the program, such as Ctrl-C.
    """
    code: object = None
    try:
        program()
    except SystemExit as left:
        code = left.code
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    # In Python's order: threads that are not daemons, what was registered for the end, what is still to be written.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(int(code or 0) & 0xFF)


def _refuse_threads() -> None:
    """A forked process lacks the threads and keeps the locks that they held; a GPU belongs to the process that opened it."""
    import torch

    if threading.active_count() > 1 or torch.cuda.is_initialized():
        raise RuntimeError("an import has started threads or a GPU")


def _send(ours: socket.socket, **message: object) -> bool:
    """Whether the other end is still open."""
    try:
        ours.send(json.dumps(message).encode())
    except OSError:
        return False
    return True


def _receive(theirs: socket.socket) -> dict[str, Any]:
    """The next message; empty when the process has died."""
    try:
        message = theirs.recv(_LONGEST)
    except OSError:
        return {}
    return json.loads(message) if message else {}


def _possible() -> bool:
    """Whether processes can be forked: outside Linux, some libraries do not work in a forked process."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _code() -> dict[str, str]:
    """The code that rows may import: file → sha256."""
    files = [file for folder in ("common", "scripts") for file in (ROOT / folder).rglob("*.py")]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
