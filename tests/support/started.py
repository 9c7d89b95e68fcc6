"""Scripts in processes of their own that begin with their imports done, which is most of what a script of a test computes.

A process that has imported what scripts import, and has run nothing, forks one for each script, as the rows of a study are
started (`common.studies.row_starter`).
"""

import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from common.cli import importing
from common.paths import ROOT
from common.studies import row_starter

EACH = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "PYTEST_CURRENT_TEST")
"""What no import reads from the environment: it may differ from one script to the next."""


class Starter:
    """The process that forks scripts, begun with the first of them."""

    def __init__(self):
        self._process, self._environment, self._lock = None, None, threading.Lock()

    def run(self, command, cwd, seconds):
        """What `subprocess.run` gives for `python COMMAND`, or None where only a process of its own can run it."""
        if sys.platform != "linux" or not self._lock.acquire(blocking=False):
            return None
        try:
            environment = {name: value for name, value in os.environ.items() if name not in EACH}
            environment["OMP_NUM_THREADS"] = "1"
            if self._process is None:
                self._begin(environment)
            if environment != self._environment:
                return None
            each = {name: os.environ[name] for name in EACH if name in os.environ}
            with TemporaryDirectory() as folder:
                sent = {"command": command, "cwd": str(cwd or Path.cwd()), "each": each, "folder": folder}
                print(json.dumps(sent), file=self._process.stdin, flush=True)
                if not select.select([self._process.stdout], [], [], seconds)[0]:
                    self._end()
                    raise subprocess.TimeoutExpired(command, seconds)
                code = int(self._process.stdout.readline())
                out, err = (Path(folder, name).read_text() for name in ("out", "err"))
            return subprocess.CompletedProcess(command, code, out, err)
        finally:
            self._lock.release()

    def _begin(self, environment):
        self._environment = environment
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _end(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


STARTER = Starter()


def serve():
    """Fork a process for each line of the input and print its exit code; returns in that process, which then runs `sys.argv`."""
    with importing():
        for name in row_starter.PRELOADED:
            importlib.import_module(name)
    assert threading.active_count() == 1
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            begin(**json.loads(line))
            return
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


def begin(command, cwd, each, folder):
    """Give a process that was just forked what Python gives to one that runs a script."""
    for descriptor, name, mode in ((0, os.devnull, "r"), (1, "out", "w"), (2, "err", "w")):
        with open(Path(folder, name), mode) as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(cwd)
    os.environ.update(each)
    sys.argv[:] = command
    sys.path[0] = str(Path(command[0]).parent)
    # Python's generator seeds itself after a fork; these do not.
    import numpy
    import torch

    numpy.random.seed()
    torch.default_generator.seed()


if __name__ == "__main__":
    serve()
    # Only a script's process gets here.
    row_starter.leave_after(lambda: runpy.run_path(sys.argv[0], run_name="__main__"))
