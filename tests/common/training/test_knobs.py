"""Settings of the training: what each does to a real run of a tiny model, and that an interrupted run ends as a whole one."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from common.training import epochs, job
from common.training.evaluation import Evaluation
from tests.support import trainings
from tests.support.techniques import TECHNIQUES
from tests.support.trainings import curve, same, weights

EPOCHS, STEPS = 4, 12


@pytest.fixture
def train(place, tiny, tmp_path):
    """Train a technique in an experiment of the test's own; gives the run."""
    names = itertools.count()

    def go(key="lora", own=None, out=None, **fields):
        technique = TECHNIQUES[key](**{"num_train_epochs": EPOCHS} | (own or {}))
        out = out or tmp_path / f"out-{next(names)}"
        return trainings.train(technique, place, tiny("bert"), out, tmp_path.name, **fields)

    return go


EVERYTHING = dict(
    lr_scheduler_type="cosine", optim="adafactor", head_learning_rate=1e-2, layer_decay=0.8,
    label_smoothing=0.1, gradient_checkpointing=True, average_last=3,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "own", "fields"),
    [
        ("lora", {"lora_plus_ratio": 4.0, "dropout": 0.1}, EVERYTHING),
        pytest.param("standard", {}, EVERYTHING | {"freeze_embeddings": True}, marks=pytest.mark.long),
        *(
            pytest.param(
                "lora",
                {"weight_decay": 0.1},
                {"optim": optim, "lr_scheduler_type": schedule},
                marks=pytest.mark.long,
            )
            for optim, schedule in (
                ("adamw_torch", "polynomial"),
                ("sgd", "inverse_sqrt"),
                ("adagrad", "constant_with_warmup"),
                ("rmsprop", "constant"),
                ("adamw_torch_fused", "cosine"),
            )
        ),
    ],
)
def test_an_interrupted_run_ends_as_a_whole_one(key, own, fields, train, monkeypatch, tmp_path):
    whole = train(key, own, **fields)
    step, calls = job.TaskTrainer.training_step, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == STEPS - 1:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(job.TaskTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(key, own, out=tmp_path / "cut", **fields)
    gone_on = train(key, own, out=tmp_path / "cut", resume=True, **fields)
    assert gone_on.info.status == "FINISHED" and gone_on.info.run_id != whole.info.run_id
    assert same(gone_on, whole)
    for name in ("train_loss", "learning_rate", "validation_f1", "mean_validation_f1"):
        assert curve(gone_on, name) == curve(whole, name)
    assert whole.data.tags.get("weights") == gone_on.data.tags.get("weights")
    assert max(step for step, _ in curve(whole)) == STEPS
    for name, value in fields.items():
        assert whole.data.params[name] == str(value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "past", [[50.0, 60.0, 70.0], [50.0, 60.0, 40.0], [60.0, 50.0, 40.0]], ids=["mean", "last", "first"]
)
def test_the_mean_of_the_last_epochs_is_kept_where_validation_finds_it_better(
    past, train, monkeypatch, capsys
):
    scores, better, mean, kept = Evaluation.scores, past[-1] > 60, {}, {}
    given, write, keep = iter(past), epochs.LastEpochs.write_mean, epochs.LastEpochs.keep

    def scored(self, predictions, examples):
        summary, each = scores(self, predictions, examples)
        return summary | {"f1": next(given, 0.0)}, each

    def written(self):
        count = write(self)
        mean.update(load_file(self.mean))
        return count

    def remembered(self, model, step):
        keep(self, model, step)
        kept[step] = load_file(self.folder / f"epoch-{step}.safetensors")

    def tested(self, model, judged, evaluation, choices, known):
        fresh = evaluation.outputs(model, judged.validation)
        assert all(np.array_equal(array, getattr(known, name)) for name, array in vars(fresh).items())
        passes.clear()
        return test(self, model, judged, evaluation, choices, known)

    def passed(self, model, split, progress=None):
        passes.append(progress)
        return outputs(self, model, split, progress)

    # What validation found is not computed again: only test is passed over in the end.
    test, outputs, passes = job.Job.test, Evaluation.outputs, []
    monkeypatch.setattr(job.Job, "test", tested)
    monkeypatch.setattr(Evaluation, "outputs", passed)
    monkeypatch.setattr(Evaluation, "scores", scored)
    monkeypatch.setattr(epochs.LastEpochs, "write_mean", written)
    monkeypatch.setattr(epochs.LastEpochs, "keep", remembered)
    run = train(own={"num_train_epochs": 2.0, "learning_rate": 1e-2}, average_last=2)
    first, second = (kept[step] for step in sorted(kept))
    for name, tensor in mean.items():
        assert tensor.equal(((first[name].double() + second[name].double()) / 2).float())
    assert any(not tensor.equal(second[name]) for name, tensor in mean.items())
    assert run.data.metrics["mean_validation_f1"] == past[-1]
    assert run.data.tags["weights"] == ("mean of the last 2 epochs" if better else "best epoch")
    assert f"validation F1 {past[-1]:.1f}, 60.0 at the best epoch" in capsys.readouterr().out
    assert passes == ["test"]
    expected = mean if better else [first, second][past.index(60.0)]
    # The adapter leaves out the names of PEFT's wrappers.
    ours = {tuple(t.flatten().tolist()) for t in weights(run).values()}
    assert ours == {tuple(t.flatten().tolist()) for t in expected.values()}


@pytest.mark.slow
def test_frozen_embeddings_stay_as_they_were(train, tiny):
    run = train("standard", {"num_train_epochs": 1.0}, freeze_embeddings=True)
    before = load_file(Path(tiny("bert")) / "model.safetensors")
    moved = {name for name, tensor in weights(run).items() if not tensor.equal(before[name])}
    assert moved and not [name for name in moved if ".embeddings." in name]
    assert any(".layer.0." in name for name in moved)


@pytest.mark.slow
def test_what_the_rate_was_chosen_by_is_printed_and_logged(train, capsys):
    run = train(own={"num_train_epochs": 1.0})
    rate = TECHNIQUES["lora"].rates.small
    source = run.data.tags["learning_rate_source"]
    assert source.startswith("default for a small model (0.0 million") and source.endswith(rate.source)
    assert run.data.params["learning_rate_source"] == source
    assert float(run.data.params["learning_rate"]) == rate.value
    assert f"LoRA: learning rate 1e-3, {source}\n" in capsys.readouterr().out
    # The same rate by a flag is the same run.
    again = train(own={"num_train_epochs": 1.0, "learning_rate": rate.value})
    assert "learning rate" not in capsys.readouterr().out
    assert again.data.tags["learning_rate_source"] == "set"
    assert again.data.tags["run_fingerprint"] == run.data.tags["run_fingerprint"]
    assert same(again, run)
