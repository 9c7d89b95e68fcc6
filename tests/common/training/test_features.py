"""Inputs that are stored are those that the task makes, whatever the task, in memory and on disk."""

import contextlib
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock, Timeout

from common.data import labelled_texts, questions
from common.data.prepared import load
from common.data.rows import Rows
from common.errors import UserError
from common.models import base
from common.tasks.table import DEFAULT_TASK, TASKS
from common.training import features
from common.training.features import training_features
from common.training.settings import RunArgs
from tests.support.texts import write_csv

FAMILY = {
    "extractive-qa": "bert",
    "classification": "distilbert",
    "generative-qa": "t5",
    "multi-label-classification": "bert",
}


@pytest.fixture(scope="module", params=TASKS)
def planned(request, tiny, tmp_path_factory):
    """A plan for each task on the packaged data, as far as inputs need one, and the tokenizer and config of its model."""
    task, folder = TASKS[request.param], tmp_path_factory.mktemp("data")
    if task.data == "multi-label text":
        sets = ["a", "b|c", "a|c", ""]
        rows = [{"text": f"The heart of {n} bees", "label": sets[n % 4]} for n in range(80)]
        file = write_csv(folder / "texts.csv", rows)
        labelled_texts.prepare_files(file, None, folder / "data", multi_label=True)
    else:
        (labelled_texts if task.data == "text" else questions).prepare_sample(folder / "data")
    splits, record = load(folder / "data")
    # Enough for several parts.
    splits["train"] = splits["train"].select(range(48))
    checkpoint = base.resolve_checkpoint(tiny(FAMILY[task.name]))
    config = base.load_config(checkpoint)
    config.update(task.head_config(record))
    args = RunArgs(task=task.name, max_length=96, doc_stride=16, data_dir=str(folder / "data"))
    return (
        SimpleNamespace(
            task=task,
            args=args,
            record=record,
            splits=splits,
            checkpoint=checkpoint,
            settings={"max_length": 96, "doc_stride": 16},
        ),
        base.load_tokenizer(checkpoint),
        config,
    )


ONE_TASK = pytest.mark.parametrize("planned", [DEFAULT_TASK], indirect=True, scope="module")
"""For what has nothing to do with the task."""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of stored inputs, which this process makes; tests of several processes say so."""
    from datasets import config

    monkeypatch.setattr(features, "cores", lambda: 1)
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path))
    return tmp_path / "bert-fine-tuning"


def assert_same(stored, made):
    assert len(stored) == len(made) > 0
    assert stored.lengths.tolist() == made.lengths.tolist()
    if hasattr(made, "example_index"):
        assert stored.example_index.tolist() == made.example_index.tolist()
    for i in range(len(made)):
        one, other = stored[i], made[i]
        assert one.keys() == other.keys()
        for name in other:
            assert np.asarray(one[name]).dtype == np.asarray(other[name]).dtype
            assert np.array_equal(one[name], other[name]), (i, name)


@pytest.mark.parametrize("on_disk", [False, True])
def test_stored_inputs_are_those_of_the_task(planned, cache, monkeypatch, on_disk):
    plan, tokenizer, config = planned
    rows = Rows(plan.splits["train"])
    made = plan.task.trained(
        plan.task.features(tokenizer, config, list(rows), plan.args), plan.record.version
    )
    # A question whose windows are all left out leaves a part of the data without a row.
    monkeypatch.setattr(features, "AT_ONCE", 5)
    monkeypatch.setattr(features, "MANY", 1 if on_disk else 10**9)
    assert_same(training_features(plan, tokenizer, config, rows), made)
    assert len(list(cache.glob("*/*.arrow"))) >= 1 if on_disk else not cache.exists()


@ONE_TASK
def test_several_processes_make_the_inputs_of_one(planned, cache, monkeypatch):
    plan, tokenizer, config = planned
    rows = Rows(plan.splits["train"])
    made = plan.task.trained(
        plan.task.features(tokenizer, config, list(rows), plan.args), plan.record.version
    )
    monkeypatch.setattr(features, "AT_ONCE", 5)
    monkeypatch.setattr(features, "MANY", 1)
    monkeypatch.setattr(features, "cores", lambda: 2)
    assert_same(training_features(plan, tokenizer, config, rows), made)
    assert len(list(cache.glob("*/*.arrow"))) == 2


def test_a_second_run_reads_what_the_first_one_wrote(planned, cache, monkeypatch):
    plan, tokenizer, config = planned
    rows = Rows(plan.splits["train"])
    monkeypatch.setattr(features, "MANY", 1)
    first = training_features(plan, tokenizer, config, rows)
    with monkeypatch.context() as patch:
        patch.setattr(type(plan.task), "features", lambda *_: pytest.fail("made again"))
        assert_same(training_features(plan, tokenizer, config, rows), first)
    # What decides the inputs is part of the place.
    shorter = SimpleNamespace(**vars(plan))
    shorter.settings = plan.settings | {"max_length": 72}
    shorter.args = replace(plan.args, max_length=72)
    training_features(shorter, tokenizer, config, rows)
    assert len([folder for folder in cache.iterdir() if folder.is_dir()]) == 2


@ONE_TASK
def test_a_part_that_was_not_written_is_made_when_asked_again(planned, cache, monkeypatch):
    plan, tokenizer, config = planned
    rows = Rows(plan.splits["train"])
    monkeypatch.setattr(features, "MANY", 1)
    monkeypatch.setattr(features, "cores", lambda: 2)
    first = training_features(plan, tokenizer, config, rows)
    written = sorted(cache.glob("*/*.arrow"))
    assert len(written) == 2
    written[1].unlink()
    assert_same(training_features(plan, tokenizer, config, rows), first)


@ONE_TASK
def test_what_a_kill_left_is_removed_and_what_is_damaged_is_made_again(planned, cache, monkeypatch):
    plan, tokenizer, config = planned
    rows = Rows(plan.splits["train"])
    monkeypatch.setattr(features, "MANY", 1)
    first = training_features(plan, tokenizer, config, rows)
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    (folder / "tmpabc").write_bytes(b"half")
    assert_same(training_features(plan, tokenizer, config, rows), first)
    assert not (folder / "tmpabc").exists()
    for file in folder.glob("*.arrow"):
        # A new file, as `first` still reads the old one.
        file.unlink()
        file.write_bytes(b"damaged")
    assert_same(training_features(plan, tokenizer, config, rows), first)


@ONE_TASK
def test_a_full_disk_is_reported_and_leaves_nothing(planned, cache, monkeypatch):
    plan, tokenizer, config = planned
    monkeypatch.setattr(features, "MANY", 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "_mapped", full)
    with pytest.raises(UserError, match="No space left on device.*HF_DATASETS_CACHE"):
        training_features(plan, tokenizer, config, Rows(plan.splits["train"]))
    assert not [path for path in cache.iterdir() if path.is_dir()]


@ONE_TASK
def test_the_oldest_inputs_are_forgotten(planned, cache, monkeypatch):
    plan, tokenizer, config = planned
    monkeypatch.setattr(features, "MANY", 1)
    for age in range(features.KEPT + 2):
        (cache / f"old{age}").mkdir(parents=True)
        os.utime(cache / f"old{age}", (age, age))
    training_features(plan, tokenizer, config, Rows(plan.splits["train"]))
    left = {folder.name for folder in cache.iterdir() if folder.is_dir()}
    assert len(left) == features.KEPT and {f"old{features.KEPT + 1}", f"old{features.KEPT - 1}"} <= left
    assert "old0" not in left


def test_settings_that_come_after_the_inputs_do_not_move_them(planned, cache, monkeypatch):
    plan, tokenizer, config = planned
    monkeypatch.setattr(features, "MANY", 1)
    later = {"n_best": 3, "max_validation_samples": 7, "max_test_samples": 9}
    for more in ({}, later, {"max_answer_length": 9}):
        other = SimpleNamespace(**vars(plan) | {"settings": plan.settings | more})
        training_features(other, tokenizer, config, Rows(plan.splits["train"]))
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2


def test_what_could_not_be_written_is_removed_while_others_wait(planned, cache, monkeypatch):
    plan, tokenizer, config = planned
    monkeypatch.setattr(features, "MANY", 1)
    waits = []

    def full(folder, *_):
        raise OSError(28, "No space left on device")

    def removed(folder, ignore_errors):
        lock = FileLock(folder.with_suffix(".lock"))
        with contextlib.suppress(Timeout), lock.acquire(timeout=0):
            waits.append(False)
        waits.append(True)

    monkeypatch.setattr(features, "_mapped", full)
    monkeypatch.setattr(features.shutil, "rmtree", removed)
    with pytest.raises(UserError, match="No space left on device"):
        training_features(plan, tokenizer, config, Rows(plan.splits["train"]))
    assert waits == [True]
