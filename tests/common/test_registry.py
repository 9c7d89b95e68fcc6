import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import pandas as pd
import pytest

from common import data, registry
from common.errors import UserError
from common.tasks import TASKS
from tests import trained

DATA = "ab" * 32


def table(*runs):
    """Runs as `tracking.runs` gives them, newest first; the test scores go against the validation scores."""
    rows = [
        {
            "run_id": f"r{i}",
            "technique": "LoRA",
            "ended": pd.Timestamp("2025-01-01", tz="UTC") - pd.Timedelta(hours=i),
            "data_name": "squad",
            "data_fingerprint": DATA,
            "best_validation_f1": f1,
            "test_f1": 100 - f1,
            "trainable_parameters": 1000,
            "max_validation_samples": "None",
            **other,
        }
        for i, (f1, other) in enumerate(runs)
    ]
    return pd.DataFrame(rows)


def test_the_best_by_validation_is_chosen_never_by_test():
    best, notes = registry.choose(table((50.0, {}), (60.0, {}), (math.nan, {}), (55.0, {})))
    assert best["run_id"] == "r1" and not notes


def test_equal_runs_are_told_apart_by_cost_then_age():
    runs = table((50.0, {}), (50.0, {"trainable_parameters": 10}), (50.0, {"trainable_parameters": 10}))
    assert registry.choose(runs)[0]["run_id"] == "r2"


def test_runs_on_other_data_or_fewer_validation_questions_are_left_out_and_named():
    other = {"data_fingerprint": "cd" * 32, "data_name": "other"}
    few = {"max_validation_samples": "20"}
    runs = table((99.0, few), (50.0, {}), (90.0, other))
    best, notes = registry.choose(runs)
    assert best["run_id"] == "r1"
    assert len(notes) == 2 and "cdcdcdcdcdcd" in notes[0] and "r0" in notes[1] and "20" in notes[1]
    assert registry.choose(runs, "cdcd")[0]["run_id"] == "r2"
    with pytest.raises(
        UserError, match="fits 0 of the data sets with finished runs: abababababab, cdcdcdcdcdcd"
    ):
        registry.choose(runs, "ff")
    with pytest.raises(UserError, match="validation F1"):
        registry.choose(table((math.nan, {})))


ROW = {
    "id": "q",
    "question": "Who?",
    "prediction": "Marie",
    "start": 8,
    "end": 13,
    "probability": 0.5,
    "n_best": [
        {"start": 8, "end": 13, "score": 5.0},
        {"start": 8, "end": 19, "score": 4.995},
        {"start": 0, "end": 2, "score": 1.0},
        {"start": -1, "end": -1, "score": 5.5},
    ],
}


@pytest.mark.parametrize(
    ("answer", "threshold", "agrees"),
    [
        (("Marie", 0.5, 8, 13), 1.0, True),
        (("Marie", 0.6, 8, 13), 1.0, False),
        (("marie", 0.5, 8, 13), 1.0, False),
        (("Marie Curie", 0.5, 8, 19), 1.0, True),
        (("In", 0.5, 0, 2), 1.0, False),
        (("", 0.5, -1, -1), 1.0, False),
        (("", 0.5, -1, -1), 0.495, True),
        (("elsewhere", 0.5, 30, 40), 1.0, False),
    ],
)
def test_answers_must_be_those_of_training_but_for_ties(answer, threshold, agrees):
    given = dict(zip(("answer", "score", "start", "end"), answer, strict=True))
    assert (not registry.disagreements([ROW], [given], threshold, 0.01)) == agrees


def tags(f1, **other):
    same = {
        "data_fingerprint": DATA,
        "data_name": "squad",
        "technique": "LoRA",
        "max_validation_samples": "None",
    }
    return {**same, "best_validation_f1": str(f1), **other}


def test_a_champion_gives_way_to_a_better_one_only_and_on_other_data_not_silently():
    assert registry.judge(tags(50), "1", tags(50), "2")[0] == "challenger"
    assert registry.judge(tags(50), "1", tags(50.1), "2")[0] == "champion"
    for other in (tags(99, data_fingerprint="cd" * 32), tags(99, max_validation_samples="5"), {}):
        alias, note = registry.judge(other, "1", tags(50), "2")
        assert alias == "champion" and "cannot be compared" in note


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(make a run, its folder): one store and one data set for all tests of this module."""
    folder = tmp_path_factory.mktemp("registry")
    with trained.store(folder):
        record = trained.prepare_data(folder)
        examples = data.load(folder / "data")[0]["test"].to_list()

        def run(experiment, **kwargs):
            return trained.log_run(folder, tiny, record, examples, experiment=experiment, **kwargs)

        yield run, folder


@pytest.fixture
def name(monkeypatch, request):
    """A registered model of this test's own."""
    own = replace(TASKS["extractive-qa"], registered=request.node.name)
    monkeypatch.setitem(TASKS, "extractive-qa", own)
    return request.node.name


def versions(name):
    return mlflow.MlflowClient().search_model_versions(f"name = '{name}'")


def recorded(run_id):
    return mlflow.artifacts.load_dict(f"runs:/{run_id}/predictions/test.json")


ASK = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise OSError("no network here")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import mlflow, pandas as pd
asked = pd.DataFrame(json.loads(sys.stdin.read()))
print(mlflow.pyfunc.load_model(sys.argv[1]).predict(asked).to_json(orient="records"))
"""


def ask_elsewhere(uri, examples, cwd):
    """Answers of a new process that has neither the network nor the project on its path."""
    asked = json.dumps([{name: e[name] for name in ("question", "context")} for e in examples])
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(uri)],
        input=asked,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_best_run_becomes_a_version_that_needs_nothing_else(world, name, tmp_path):
    run, folder = world
    worse, best = run("first", technique="standard", validation_f1=40.0), run("first", validation_f1=50.0)
    before = mlflow.get_run(best)
    done = registry.register_best("first")
    assert (done.version, done.alias, done.run_id, done.is_new) == ("1", "champion", best, True)
    assert "8 test questions are answered as in training." in done.notes
    after = mlflow.get_run(best)
    assert after.info.to_proto() == before.info.to_proto() and after.data.metrics == before.data.metrics

    (version,) = versions(name)
    assert version.tags["technique"] == "LoRA" and version.tags["run_id"] == best != worse
    for tag in (
        "data_fingerprint",
        "run_fingerprint",
        "checkpoint",
        "test_f1",
        "test_f1_low",
        "best_validation_f1",
    ):
        assert version.tags[tag]
    page = mlflow.MlflowClient().get_model_version(name, "1").description
    assert "40.0 (35.0 to 45.0)" in page and best in page and version.tags["data_fingerprint"] in page

    again = registry.register_best("first")
    assert (again.version, again.alias, again.is_new) == ("1", "champion", False)
    assert "registered already" in again.notes[0] and len(versions(name)) == 1

    # Neither the shared base nor what training logged is needed: not here, and not where the folder is copied to.
    examples = data.load(folder / "data")[0]["test"].to_list()
    moved = shutil.copytree(
        mlflow.artifacts.download_artifacts(f"models:/{name}@champion"), tmp_path / "copied"
    )
    shutil.move(folder / "mlruns" / "shared-bases", tmp_path / "gone")
    try:
        for uri in (f"models:/{name}@champion", moved):
            answers = ask_elsewhere(uri, examples, tmp_path)
            for row, answer in zip(recorded(best), answers, strict=True):
                assert (answer["answer"], answer["start"]) == (row["prediction"], row["start"])
                assert answer["score"] == pytest.approx(row["probability"], abs=1e-4)
    finally:
        shutil.move(tmp_path / "gone", folder / "mlruns" / "shared-bases")


def test_incumbents(world, name):
    run, _ = world
    run("b60", validation_f1=60.0, technique="standard")
    run("b55", validation_f1=55.0)
    run("b70", validation_f1=70.0)
    assert registry.register_best("b60").alias == "champion"
    second = registry.register_best("b55")
    assert second.alias == "challenger" and "Version 1 (Standard) stays champion" in second.notes[-1]
    assert registry.register_best("b55").alias == "challenger" and len(versions(name)) == 2
    third = registry.register_best("b70")
    assert third.alias == "champion" and "gives way" in third.notes[-1]

    # Whoever goes back to an earlier version by hand is not overruled.
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(name, "champion", "1")
    back = registry.register_best("b70")
    assert back.alias is None and not back.is_new
    assert str(client.get_model_version_by_alias(name, "champion").version) == "1"


def test_the_same_training_run_twice_is_registered_once(world, name):
    run, _ = world
    first = run("twice", validation_f1=50.0)
    assert registry.register_best("twice").is_new
    mlflow.delete_run(first)
    run("twice", validation_f1=50.0)
    assert not registry.register_best("twice").is_new


def stored(run_id):
    """The folder of the model that training logged."""
    run = mlflow.get_run(run_id)
    return Path(urlparse(registry._logged_model(run).artifact_location).path)


def test_a_model_that_answers_otherwise_is_refused_and_leaves_nothing(world, name, tiny, tmp_path):
    run, _ = world
    run_id = run("changed", technique="lora")
    other = trained.save(tmp_path, tiny, "lora", seed=7)[0]
    file = "adapter/adapter_model.safetensors"
    shutil.copy(other / file, stored(run_id) / "artifacts" / "bundle" / file)
    experiment = mlflow.get_run(run_id).info.experiment_id
    before = len(mlflow.search_logged_models(experiment_ids=[experiment], output_format="list"))
    with pytest.raises(UserError, match=r"does not answer as it did.*of 8 questions differ"):
        registry.register_best("changed")
    assert not versions(name)
    assert len(mlflow.search_logged_models(experiment_ids=[experiment], output_format="list")) == before


def test_a_shared_base_that_was_changed_or_lost_is_noticed(world, name):
    run, folder = world
    run("base")
    (config,) = (folder / "mlruns" / "shared-bases").rglob("base/config.json")
    text = config.read_text()
    try:
        config.write_text(text + " ")
        with pytest.raises(UserError, match="shared base .* was changed"):
            registry.register_best("base")
        config.parent.rename(config.parent.with_name("lost"))
        with pytest.raises(UserError, match="cannot be read from the store"):
            registry.register_best("base")
    finally:
        config.parent.with_name("lost").rename(config.parent)
        config.write_text(text)
    assert not versions(name)


def test_without_the_data_one_question_is_checked_and_that_is_said(world, name, tmp_path):
    run, folder = world
    run("nodata", technique="standard", data_dir=tmp_path / "missing")
    trained.prepare_data(tmp_path, "v1.1")
    with pytest.raises(UserError, match="holds other data"):
        registry.register_best("nodata", data_dir=tmp_path / "data")
    with pytest.raises(UserError, match="no such folder"):
        registry.register_best("nodata", data_dir=tmp_path / "missing")
    done = registry.register_best("nodata")
    assert done.alias == "champion" and any("one question only" in note for note in done.notes)


def test_no_runs_no_version(world, name):
    with pytest.raises(UserError, match="'empty' holds no finished run"):
        registry.register_best("empty")
