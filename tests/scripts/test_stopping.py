"""A technique's script ends in time on a signal, wherever its main thread is stuck, and goes on to the same weights."""

import signal
import subprocess
import sys
import time

import mlflow
import pytest
from safetensors.torch import load_file

from common.paths import ROOT
from tests.scripts.conftest import SMALL, runs

TECHNIQUE = f"""
import sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
import _path
import ctypes, os, pathlib
from dataclasses import dataclass
from common.training import evaluation, job, trainer
from common.training.command_line import main
from common.training.settings import Technique, option


def block(where):
    # Waits in C for good, without Python's lock; a signal does not end it.
    if os.environ.get("STUCK_IN") == where:
        mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex)
        pathlib.Path("stuck").touch()
        lock(mutex)


def before(owner, name, where, when=lambda self: True):
    whole = getattr(owner, name)

    def stuck(self, *args, **kwargs):
        if when(self):
            block(where)
        return whole(self, *args, **kwargs)

    setattr(owner, name, stuck)


before(trainer.TaskTrainer, "training_step", "step", lambda self: self.state.global_step == 3)
before(evaluation.Evaluation, "scores", "evaluation")
before(job.Job, "test", "test")


@dataclass(frozen=True)
class Stuck(Technique):
    name = "Stuck"
    key = "stuck"
    learning_rate: float = option(1e-3, "peak learning rate")

    def method(self, family):
        from peft import LoraConfig

        block("plan" if sys._getframe(1).f_globals["__name__"] != "common.training.job" else "model")
        return LoraConfig(r=4, target_modules=family.linear_layers)


if __name__ == "__main__":
    main(Stuck)
"""


@pytest.fixture
def script(tmp_path, tiny, prepared):
    """Start the technique's script, stuck at a place or not; gives its process."""
    file, started = tmp_path / "stuck.py", []
    file.write_text(TECHNIQUE)

    def start(stuck_in="", folder="out", *flags):
        command = [sys.executable, file, "--model_checkpoint", tiny("bert"), "--data_dir", prepared[0]]
        command += [*SMALL, "--save_steps", 2, "--output_dir", tmp_path / folder, *flags]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STUCK_IN", stuck_in)
            patch.setenv("OMP_NUM_THREADS", "1")
            one = subprocess.Popen(
                list(map(str, command)),
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()


def stop(process, file, number=signal.SIGTERM):
    """Send a signal once the script is stuck; (exit code, what it printed as errors)."""
    end = time.monotonic() + 240
    while not file.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
    file.unlink()
    begun = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < 15, errors
    return process.returncode, errors


def weights(run):
    (model,) = [
        m
        for m in mlflow.search_logged_models([run.info.experiment_id], output_format="list")
        if m.source_run_id == run.info.run_id
    ]
    folder = mlflow.artifacts.download_artifacts(f"models:/{model.model_id}")
    return load_file(f"{folder}/artifacts/bundle/adapter/adapter_model.safetensors")


@pytest.mark.long
def test_a_training_that_is_stuck_ends_and_goes_on_to_the_same_weights(script, store, tmp_path):
    for place in ("model", "step", "test"):
        code, errors = stop(script(place, "out", "--resume"), tmp_path / "stuck")
        assert code == 143 and "To go on: " in errors and "--resume" in errors, errors
        (run,) = runs()
        assert run.info.status == "KILLED"
    assert script("", "out", "--resume").wait(240) == 0
    (run,) = runs()
    assert run.info.status == "FINISHED" and not (tmp_path / "out").exists()
    assert script("", "whole").wait(240) == 0
    (whole,) = (other for other in runs() if other.info.run_id != run.info.run_id)
    ours, theirs = weights(run), weights(whole)
    assert ours.keys() == theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours)


@pytest.mark.long
@pytest.mark.parametrize(
    ("place", "number", "code"), [("plan", signal.SIGINT, 130), ("evaluation", signal.SIGHUP, 129)]
)
def test_a_script_that_is_stuck_elsewhere_ends_too(script, store, tmp_path, place, number, code):
    assert stop(script(place), tmp_path / "stuck", number)[0] == code
    assert [run.info.status for run in runs()] == ([] if place == "plan" else ["KILLED"])
