"""One row of a study as a trial of Ray Tune, on whichever machine Ray puts it. Needs requirements-ray.txt.

The row is a process of the technique's own script, as everywhere else; its validation scores are reported to Ray.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock, Timeout
from ray import tune

from .folder import output, reason

SCORE, EPOCH = "score", "epoch"
POLL_SECONDS = 0.5

DIES_WITH_ITS_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "if os.getppid() == int(sys.argv[1]): os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)
"""On Linux the process ends with Ray's worker, however the worker ends: two processes must never train one row."""


class Job(TypedDict):
    """What a trial runs."""

    command: list[str]
    """A script and its arguments."""
    log: str
    output_dir: str
    """The folder of the row's checkpoints."""
    metric: str
    epochs: float
    threads: int
    cwd: str


class RowTrial(tune.Trainable):
    """Its config holds a `job`. A step lasts until the next evaluation and returns SCORE, in percent, and EPOCH; the last step
    returns the `code` of the process that has ended, and `why` it failed."""

    def setup(self, config: dict[str, Any]) -> None:
        self.job: Job = config["job"]
        self.reported = 0.0
        """The latest epoch whose score Ray has."""
        self.parent = os.getppid()
        self.output_dir, self.log = Path(self.job["output_dir"]), Path(self.job["log"])
        if not Path(self.job["cwd"]).is_dir() or not self.log.parent.is_dir():
            raise RuntimeError(
                f"{os.uname().nodename} does not see {self.job['cwd']} and {self.log.parent}: machines of a study share its folders."
            )
        self._wait_for_the_last_worker()
        command = list(self.job["command"])
        if sys.platform == "linux":
            command = ["-c", DIES_WITH_ITS_PARENT, str(os.getpid()), *command]
        self.before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.job["cwd"],
                env={"OMP_NUM_THREADS": str(self.job["threads"]), **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for_the_last_worker(self) -> None:
        """A process that trained the row before may take a moment to end, and locks its folder until then."""
        self.output_dir.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{self.output_dir}.lock")
        try:
            lock.acquire(timeout=60)
        except Timeout:
            # Another study trains the same row: the script will report it.
            return
        lock.release()

    def step(self) -> dict[str, Any]:
        while True:
            if os.getppid() != self.parent:
                # Ray's process on this machine has ended, and the row moves to another one; the child ends with this process.
                os._exit(1)
            code = self.child.poll()
            if code is not None:
                return {"done": True, "code": code, "why": reason(code, output(self.log, self.before))}
            for epoch, score in evaluations(self.output_dir, self.job["metric"]):
                # The last score is not reported: only the test is left, so stopping would save nothing.
                if self.reported < epoch < self.job["epochs"]:
                    self.reported = epoch
                    return {EPOCH: epoch, SCORE: score}
            time.sleep(POLL_SECONDS)

    def cleanup(self) -> None:
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


def evaluations(output_dir: Path, metric: str) -> list[tuple[float, float]]:
    """(epoch, validation score in percent) of each evaluation up to the latest checkpoint in a run's folder."""
    found = sorted(output_dir.glob("checkpoint-*/trainer_state.json"), key=_step)
    for file in reversed(found):
        try:
            history = json.loads(file.read_text(encoding="utf-8"))["log_history"]
        except (OSError, ValueError):
            # It is being written, or was just removed.
            continue
        return [(e["epoch"], e[f"eval_{metric}"]) for e in history if f"eval_{metric}" in e]
    return []


def _step(file: Path) -> int:
    return int(file.parent.name.split("-")[-1])
