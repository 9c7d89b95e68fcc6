"""One row of a study as a trial of Ray Tune, on whichever machine Ray puts it. Needs requirements-ray.txt.

The row is a process of the technique's own script, as everywhere else; what Ray is told are its validation scores.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout
from ray import tune

from .folder import reason

SCORE, EPOCH = "score", "epoch"
POLL_SECONDS = 0.5

_DIES_WITH_ITS_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "if os.getppid() == int(sys.argv[1]): os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)
"""Linux ends the process when Ray's worker ends, however that ends: two must never train one row."""


class RowTrial(tune.Trainable):
    """config: `job` with `command` (a script and its arguments), `log`, `output_dir`, `metric`, `epochs`, `threads`,
    `cwd`. A step lasts until the next evaluation and gives SCORE, in percent, and EPOCH; the last one, once the process
    has ended, gives `code` and `why`."""

    def setup(self, config):
        self.job, self.told, self.parent = config["job"], 0.0, os.getppid()
        self.output_dir, self.log = Path(self.job["output_dir"]), Path(self.job["log"])
        if not Path(self.job["cwd"]).is_dir() or not self.log.parent.is_dir():
            raise RuntimeError(
                f"{os.uname().nodename} does not see {self.job['cwd']} and {self.log.parent}: machines of a study share its folders."
            )
        self._wait_for_the_dead()
        command = list(self.job["command"])
        if sys.platform == "linux":
            command = ["-c", _DIES_WITH_ITS_PARENT, str(os.getpid()), *command]
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

    def _wait_for_the_dead(self) -> None:
        """Whoever trained the row before may take a moment to die; its folder is free then."""
        self.output_dir.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{self.output_dir}.lock")
        try:
            lock.acquire(timeout=60)
        except Timeout:
            # Another study trains the same row: the script will say so.
            return
        lock.release()

    def step(self):
        while True:
            if os.getppid() != self.parent:
                # Ray's process on this machine is gone, and gives the row to another one; the child ends with this one.
                os._exit(1)
            code = self.child.poll()
            if code is not None:
                said = self.log.read_bytes()[self.before :].decode("utf-8", errors="replace")
                return {"done": True, "code": code, "why": reason(code, said)}
            for epoch, score in evaluations(self.output_dir, self.job["metric"]):
                # The last one stops nothing any more; what is left is its test.
                if self.told < epoch < self.job["epochs"]:
                    self.told = epoch
                    return {EPOCH: epoch, SCORE: score}
            time.sleep(POLL_SECONDS)

    def cleanup(self):
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
            # It is being written, or was removed meanwhile.
            continue
        return [(e["epoch"], e[f"eval_{metric}"]) for e in history if f"eval_{metric}" in e]
    return []


def _step(file: Path) -> int:
    return int(file.parent.name.split("-")[-1])
