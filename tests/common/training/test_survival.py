"""What a training survives, and how it says what it cannot: faults are injected into real runs of a tiny model."""

import math
import os
import pickle
import re
import resource
import time
from dataclasses import replace

import mlflow
import pytest
import torch
from safetensors.torch import load_file

from common.errors import UserError
from common.tasks.table import TASKS
from common.tracking import runs
from common.tracking.journal import JOURNAL
from common.tracking.runs import finished_runs, recorded
from common.training import checkpoints, fit, job, recording
from common.training.evaluation import Evaluation
from tests.support import trainings
from tests.support.techniques import DECLARED, TECHNIQUES
from tests.support.techniques import technique as technique_of
from tests.support.trainings import curve, same, weights

WITH_MORE = ["adalora, often", "lora, eva", "lora, pissa", "lora, all at once", "prefix-tuning, dropout"]
"""Variants that go on from more than their weights; the others go on from theirs in test_trainable.py."""


@pytest.fixture
def train(place, tiny, tmp_path):
    """Train LoRA, or another technique, in an experiment of the test's own; gives the run."""

    def go(experiment=tmp_path.name, epochs=4.0, technique="lora", **fields):
        of = replace(technique_of(technique), num_train_epochs=epochs)
        return trainings.train(of, place, tiny("bert"), tmp_path / "out", experiment, **fields)

    return go


@pytest.fixture(scope="module")
def undisturbed(place, tiny, tmp_path_factory):
    """The run of the same settings that nothing happens to."""
    lora, out = TECHNIQUES["lora"](num_train_epochs=4.0), tmp_path_factory.mktemp("whole") / "out"
    return trainings.train(lora, place, tiny("bert"), out, "undisturbed")


@pytest.fixture
def loss(monkeypatch):
    """Put a function around the loss of each batch: it gets the number of the call from 1, the batch, and the loss's own call."""

    def around(function):
        task, calls = TASKS["extractive-qa"], []

        def changed(model, batch, labels):
            calls.append(len(labels))
            return function(len(calls), batch, lambda: type(task).loss(task, model, batch, labels))

        monkeypatch.setattr(task, "loss", changed)
        return calls

    return around


def only_run(experiment):
    (run,) = mlflow.search_runs(experiment_names=[experiment], output_format="list")
    return run


def assert_same(run, other):
    """One point for each step, and every weight, bit for bit."""
    assert run.info.status == "FINISHED"
    for name in ("train_loss", "learning_rate", "grad_norm", "validation_f1"):
        assert curve(run, name) == curve(other, name)
    assert same(run, other)
    assert run.data.metrics["test_f1"] == other.data.metrics["test_f1"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing is caught, said or ended."""


@pytest.fixture
def kill(monkeypatch):
    """End a run as SIGKILL does: its recorder does not record how the run has ended."""

    started, begin = [], recording.Recorder.__init__

    def remember(self, *args):
        begin(self, *args)
        started.append(self)

    def end(self, status, failure=None):
        if status == "FINISHED":
            try:
                return whole(self, status, failure)
            except Killed:
                # Or two threads would send the same journal.
                self.sender.stop(60)
                raise
        self.sender.close(5)
        self.journal.close()
        return True

    whole = recording.Recorder.end
    monkeypatch.setattr(recording.Recorder, "__init__", remember)
    monkeypatch.setattr(recording.Recorder, "end", end)

    def now():
        raise Killed

    yield now
    # A killed process has no thread that goes on; one that did would open the stores of later tests.
    for recorder in started:
        recorder.sender.stop(10)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [False, True])
def test_a_killed_run_goes_on_to_the_same_end(train, undisturbed, kill, loss, tmp_path, damage):
    """The curve too, whose points lie between checkpoints; the point that was recorded after the checkpoint is recorded once."""
    loss(lambda n, batch, own: own() if n < 8 else kill())
    with pytest.raises(Killed):
        train()
    assert only_run(tmp_path.name).info.status == "RUNNING"
    if damage:
        file = checkpoints.newest(tmp_path / "out") / "optimizer.pt"
        file.write_bytes(file.read_bytes()[:-100])
    loss(lambda n, batch, own: own())
    assert_same(train(resume=True), undisturbed)
    assert not (tmp_path / "out").exists() and only_run(tmp_path.name)


@pytest.mark.slow
def test_what_the_machine_does_is_recorded_and_changes_nothing(
    train, undisturbed, kill, loss, monkeypatch, tmp_path
):
    """Its points go on after a kill, and no comparison of runs has them."""
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.02")
    name = "system/cpu_utilization_percentage"

    def sampled(more):
        until = time.monotonic() + 60
        while (tmp_path / "out" / JOURNAL).read_text().count(name) < more:
            assert time.monotonic() < until
            time.sleep(0.02)

    loss(lambda n, batch, own: own() if n < 8 else (sampled(2), kill()))
    with pytest.raises(Killed):
        train()
    before = (tmp_path / "out" / JOURNAL).read_text().count(name)
    loss(lambda n, batch, own: (sampled(before + 2), own())[1])
    run = train(resume=True)
    assert_same(run, undisturbed)
    steps = [step for step, _ in curve(run, name)]
    assert steps == list(range(len(steps))) and len(steps) >= before + 2
    assert not [each for each in finished_runs(tmp_path.name).columns if each.startswith("system/")]
    assert not [each for each in recorded(run.info.run_id)["metrics"] if each.startswith("system/")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "technique",
    [
        pytest.param(name, marks=() if name == "adalora" else pytest.mark.long)
        for name in DECLARED + WITH_MORE
        if name != "lora"
    ],
)
def test_a_killed_run_of_any_technique_goes_on_to_the_same_end(technique, train, kill, loss, tmp_path):
    whole = train(experiment=f"{tmp_path.name}-whole", technique=technique)
    # Of 12 steps the sixth; AdaLoRA has begun to take ranks away.
    loss(lambda n, batch, own: own() if n < 6 else kill())
    with pytest.raises(Killed):
        train(technique=technique)
    assert checkpoints.newest(tmp_path / "out") is not None
    loss(lambda n, batch, own: own())
    assert_same(train(resume=True, technique=technique), whole)


@pytest.mark.slow
@pytest.mark.parametrize("after", ["model", "log_history.json", "end", "removal"])
def test_a_run_that_is_killed_at_its_end_is_not_trained_again(
    train, undisturbed, kill, monkeypatch, tmp_path, after
):
    """Between training and the end of the process; then the store has everything once."""
    with monkeypatch.context() as patch:
        if after == "removal":

            def remove(folder, state):
                from common.files import write_json
                from common.training.run_folder import STATE

                write_json(folder / STATE, state | {"removing": True})
                kill()

            patch.setattr(fit, "remove", remove)
        else:
            append = recording.Recorder.append

            def dying(self, do, **content):
                append(self, do, **content)
                if after in (do, content.get("file")):
                    kill()

            patch.setattr(recording.Recorder, "append", dying)
        with pytest.raises(Killed):
            train()
    monkeypatch.setattr(job.TaskTrainer, "training_step", lambda *_: pytest.fail("trained again"))
    assert_same(train(resume=True), undisturbed)
    # And once more, where nothing is left of it.
    assert train(resume=True).info.run_id == only_run(tmp_path.name).info.run_id


@pytest.mark.slow
def test_early_stopping_is_not_forgotten(train, kill, monkeypatch, tmp_path):
    """The Trainer itself would train a step more after the checkpoint at which it stopped."""
    fields, scores, falling = dict(early_stopping_patience=1), Evaluation.scores, iter(range(99, 0, -1))

    def worse(self, *args):
        summary, each = scores(self, *args)
        return summary | {"f1": float(next(falling))}, each

    monkeypatch.setattr(Evaluation, "scores", worse)
    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "test", lambda *_: kill())
        with pytest.raises(Killed):
            train(**fields)
    steps = curve(only_run(tmp_path.name))
    monkeypatch.setattr(job.TaskTrainer, "training_step", lambda *_: pytest.fail("trained a step more"))
    assert curve(train(resume=True, **fields)) == steps


@pytest.mark.long
def test_no_room_halves_the_batch_and_keeps_the_gradients(train, undisturbed, loss, capsys):
    """Also where the batch before it in the same step has been summed up already."""

    def no_room(n, batch, own):
        if len(batch["input_ids"]) > 1 and n > 1:
            # Some of the batch has been summed up when there is no more room.
            own().backward()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried much")
        return own()

    sizes = loss(no_room)
    run = train(batch_size=2, gradient_accumulation_steps=2)
    assert sizes[:6] == [2, 2, 1, 1, 1, 1] and set(sizes[6:]) == {1}
    assert run.data.tags["no_room"].startswith("batches of 1, 4 of them a step, from step 1")
    assert "No room on the device" in capsys.readouterr().out
    loss(lambda n, batch, own: own())
    whole = train(batch_size=2, gradient_accumulation_steps=2, experiment="with-room")
    for name in ("train_loss", "grad_norm"):
        for (step, a), (other, b) in zip(curve(run, name), curve(whole, name), strict=True):
            assert step == other and a == pytest.approx(b, rel=1e-4)
    # Adam makes whole steps of gradients that are nothing but rounding; of the others it does not.
    ours, theirs = (torch.cat([t.flatten() for t in weights(r).values()]) for r in (run, whole))
    assert (ours - theirs).abs().median() < 1e-6


@pytest.mark.slow
def test_no_room_for_a_single_window_is_said(train, loss):
    loss(
        lambda n, batch, own: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried much"))
    )
    with pytest.raises(UserError, match=r"even for one window.*--max_length"):
        train()


@pytest.mark.slow
@pytest.mark.parametrize("factor", [math.nan, 1e4])
def test_a_diverging_run_names_its_batch_and_keeps_the_last_good_checkpoint(
    train, loss, tmp_path, tiny, factor, examples
):
    rows = []

    def go_wrong(n, batch, own):
        if n == 4:
            rows.extend(batch["input_ids"])
        return own() * (factor if n >= 4 else 1.0)

    loss(go_wrong)
    with pytest.raises(UserError, match="at step 4 .learning rate .*diverged") as stopped:
        train()
    message = str(stopped.value)
    run = only_run(tmp_path.name)
    assert run.info.status == "FAILED" and message in run.data.tags["failure"]
    ids = re.search(r"batch of (.*)\): training", message)[1].split(", ")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    questions = {f"train-{e['id']}": e["question"] for e in examples}
    asked = {tokenizer.decode(row).split("[SEP]")[0].removeprefix("[CLS]").strip() for row in rows}
    assert asked == {tokenizer.decode(tokenizer.encode(questions[id_])[1:-1]) for id_ in ids}
    last = checkpoints.newest(tmp_path / "out")
    assert last.name == "checkpoint-3" and str(last) in message
    assert all(t.isfinite().all() for t in load_file(last / "trainable.safetensors").values())


@pytest.mark.long
def test_a_full_disk_is_a_clear_word_and_loses_nothing(train, undisturbed, loss, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(n, batch, own):
        if n == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, hard))
        return own()

    loss(fill)
    try:
        with pytest.raises(UserError, match="cannot be written.*--resume"):
            train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    loss(lambda n, batch, own: own())
    assert_same(train(resume=True), undisturbed)


@pytest.mark.slow
def test_a_clock_that_is_set_back_leaves_the_same_record(train, undisturbed, monkeypatch, loss):
    now = time.time

    def set_back(n, batch, own):
        if n == 5:
            monkeypatch.setattr(time, "time", lambda: now() - 86_400)
        return own()

    loss(set_back)
    run = train()
    assert sorted(curve(run)) == sorted(curve(undisturbed))
    assert run.data.metrics["validation_f1"] == undisturbed.data.metrics["validation_f1"]
    assert run.data.metrics["training_seconds"] < 600


@pytest.mark.long
def test_a_store_that_is_gone_for_good_does_not_stop_a_training(
    train, undisturbed, loss, monkeypatch, tmp_path, capsys
):
    """What it lacks lies on the disk until sync.py sends it; a new start sends it first."""
    monkeypatch.setattr(recording, "PATIENCE", 3.0)
    monkeypatch.setattr(recording, "HURRY", 3.0)
    gone = runs.Run.log_points

    def away(n, batch, own):
        if n == 3:
            for name in ("log_points", "log_artifact", "set_tags", "log_params"):
                monkeypatch.setattr(runs.Run, name, refuse)
        return own()

    def refuse(*args, **kwargs):
        raise mlflow.exceptions.MlflowException("no route to host")

    kept = {name: getattr(runs.Run, name) for name in ("log_artifact", "set_tags", "log_params")}
    loss(away)
    with pytest.raises(UserError, match=r"no route to host.*scripts/sync.py .*out"):
        train()
    assert "what is to be recorded is kept" in capsys.readouterr().err.lower()
    run_id = only_run(tmp_path.name).info.run_id
    assert only_run(tmp_path.name).info.status == "RUNNING"
    # Neither does a new start lose it.
    with pytest.raises(UserError, match="scripts/sync.py"):
        train()
    for name, method in (kept | {"log_points": gone}).items():
        monkeypatch.setattr(runs.Run, name, method)
    assert recording.send(tmp_path / "out")[2] == "FINISHED"
    assert only_run(tmp_path.name).info.run_id == run_id
    assert_same(only_run(tmp_path.name), undisturbed)


@pytest.mark.slow
def test_a_checkpoint_that_would_run_code_is_refused(train, kill, loss, tmp_path):
    loss(lambda n, batch, own: own() if n < 4 else kill())
    with pytest.raises(Killed):
        train()
    last = checkpoints.newest(tmp_path / "out")

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    (last / "optimizer.pt").write_bytes(pickle.dumps(Bomb()))
    notes = checkpoints.notes(last)
    (last / checkpoints.SEAL).unlink()
    checkpoints.seal(last, notes)
    with pytest.raises(UserError, match="is not used"):
        train(resume=True)
    assert not (tmp_path / "exploded").exists()
