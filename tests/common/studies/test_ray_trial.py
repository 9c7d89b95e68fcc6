"""The evaluations that a row's checkpoints hold, and that its process ends with its worker."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")

from common.studies import ray_trial
from common.studies.ray_trial import EPOCH, SCORE, RowTrial, evaluations


def checkpoint(folder, step, *scores):
    file = folder / f"checkpoint-{step}" / "trainer_state.json"
    file.parent.mkdir(parents=True)
    history = [{"loss": 1.0, "epoch": 0.5}]
    history += [{"eval_f1": score, "epoch": float(i)} for i, score in enumerate(scores, 1)]
    file.write_text(json.dumps({"log_history": history}))


def test_evaluations_are_those_of_the_latest_whole_checkpoint(tmp_path):
    assert evaluations(tmp_path / "none", "f1") == []
    checkpoint(tmp_path, 9, 10.0)
    checkpoint(tmp_path, 10, 10.0, 20.0)
    assert evaluations(tmp_path, "f1") == [(1.0, 10.0), (2.0, 20.0)]
    checkpoint(tmp_path, 11)
    (tmp_path / "checkpoint-11" / "trainer_state.json").write_text('{"log_hist')
    assert evaluations(tmp_path, "f1") == [(1.0, 10.0), (2.0, 20.0)]


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """A trial of a script that waits for a file and then fails."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\nprint('error: it has diverged', flush=True)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.02)\nsys.exit(2)\n"
    )
    monkeypatch.setattr(ray_trial, "POLL_SECONDS", 0.02)
    trial = RowTrial.__new__(RowTrial)
    trial.setup({"job": {
        "command": [str(script), str(tmp_path / "go")], "log": str(tmp_path / "log"), "output_dir": str(tmp_path / "out"),
        "metric": "f1", "epochs": 3.0, "threads": 1, "cwd": str(tmp_path),
    }})  # fmt: skip
    yield trial
    trial.cleanup()


def test_a_step_is_an_evaluation_but_for_the_last_which_is_the_end(trial, tmp_path):
    checkpoint(tmp_path / "out", 10, 10.0, 20.0)
    assert trial.step() == {EPOCH: 1.0, SCORE: 10.0} and trial.step() == {EPOCH: 2.0, SCORE: 20.0}
    checkpoint(tmp_path / "out", 15, 10.0, 20.0, 30.0)
    (tmp_path / "go").touch()
    assert trial.step() == {"done": True, "code": 2, "why": "it has diverged"}


def test_a_trial_that_is_stopped_ends_its_process(trial):
    trial.cleanup()
    assert trial.child.returncode == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_process_ends_with_its_worker_however_that_ends(tmp_path):
    waits = "import time; time.sleep(60)"
    worker = (
        "import os, subprocess, sys, time\nfrom common.studies.ray_trial import DIES_WITH_ITS_PARENT as launcher\n"
        f"child = subprocess.Popen([sys.executable, '-c', launcher, str(os.getpid()), '-c', {waits!r}])\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    os.kill(pid, 0)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(pid)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False
