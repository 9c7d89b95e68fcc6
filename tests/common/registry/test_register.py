import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import pandas as pd
import pytest

from common.data import prepared
from common.errors import UserError
from common.registry import champion as promotion
from common.registry import choosing, register, versions
from common.registry.gate import Rules
from common.serving import stored_code
from common.tasks.table import TASKS
from tests.support import stores, trained

DATA = "ab" * 32


def table(*runs):
    """Runs as `finished_runs` gives them, newest first; the test scores go against the validation scores."""
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
    best, notes = choosing.choose(table((50.0, {}), (60.0, {}), (math.nan, {}), (55.0, {})))
    assert best["run_id"] == "r1" and not notes


def test_equal_runs_are_told_apart_by_cost_then_age():
    runs = table((50.0, {}), (50.0, {"trainable_parameters": 10}), (50.0, {"trainable_parameters": 10}))
    assert choosing.choose(runs)[0]["run_id"] == "r2"


def test_runs_on_other_data_or_fewer_validation_questions_are_left_out_and_named():
    other = {"data_fingerprint": "cd" * 32, "data_name": "other"}
    few = {"max_validation_samples": "20"}
    runs = table((99.0, few), (50.0, {}), (90.0, other))
    best, notes = choosing.choose(runs)
    assert best["run_id"] == "r1"
    assert len(notes) == 2 and "cdcdcdcdcdcd" in notes[0] and "r0" in notes[1] and "20" in notes[1]
    assert choosing.choose(runs, "cdcd")[0]["run_id"] == "r2"
    with pytest.raises(
        UserError, match="fits 0 of the data sets with finished runs: abababababab, cdcdcdcdcdcd"
    ):
        choosing.choose(runs, "ff")
    with pytest.raises(UserError, match="validation F1"):
        choosing.choose(table((math.nan, {})))


def test_labels_are_chosen_by_accuracy():
    task = TASKS["classification"]
    runs = table((90.0, {"best_validation_accuracy": 50.0}), (10.0, {"best_validation_accuracy": 60.0}))
    assert choosing.choose(runs, None, task)[0]["run_id"] == "r1"
    with pytest.raises(UserError, match="validation accuracy"):
        choosing.choose(runs.assign(best_validation_accuracy=math.nan), None, task)


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(make a run or find the one made like it, its folder): one store and one data set for all tests of this module."""
    folder = tmp_path_factory.mktemp("registry")
    with stores.in_force(folder), trained.checked_here():
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()

        made = {}

        def run(experiment, **kwargs):
            key = (experiment, *sorted(kwargs.items()))
            if key not in made:
                made[key] = trained.log_run(folder, tiny, record, examples, experiment=experiment, **kwargs)
            return made[key]

        yield run, folder


@pytest.fixture
def name(monkeypatch, request):
    """A registered model of this test's own."""
    monkeypatch.setattr(TASKS["extractive-qa"], "registered", request.node.name)
    return request.node.name


def registered(name):
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


def first_runs(run):
    """(worse by validation, best)."""
    worse = run("first", technique="standard", validation_f1=40.0, test_f1=1.0)
    return worse, run("first", validation_f1=50.0, test_f1=0.5)


@pytest.mark.long
def test_the_best_run_becomes_a_version_that_needs_nothing_else(world, name, tmp_path):
    run, folder = world
    worse, best = first_runs(run)
    before = mlflow.get_run(best)
    done = register.register_best("first")
    assert (done.version, done.alias, done.run_id, done.is_new) == ("1", "champion", best, True)
    assert "8 test questions are answered as in training." in done.notes
    after = mlflow.get_run(best)
    assert after.info.to_proto() == before.info.to_proto() and after.data.metrics == before.data.metrics

    (version,) = registered(name)
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

    again = register.register_best("first")
    assert (again.version, again.alias, again.is_new) == ("1", "champion", False)
    assert "registered already" in again.notes[0] and len(registered(name)) == 1

    # Neither the shared base nor what training logged is needed: not here, and not where the folder is copied to.
    examples = prepared.load(folder / "data")[0]["test"].to_list()
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


def champion(name):
    return promotion.by_alias(mlflow.MlflowClient(), name, "champion")


def three_experiments(run):
    """b60; b80, better by validation and no better on test; b55, better on test."""
    run("b60", validation_f1=60.0, technique="standard", test_f1=0.5)
    run("b80", validation_f1=80.0, test_f1=0.5)
    run("b55", validation_f1=55.0, test_f1=1.0)


@pytest.mark.long
def test_the_gate_decides_and_says_why(world, name):
    run, _ = world
    three_experiments(run)
    assert register.register_best("b60").alias == "champion"
    # A better score on validation does not do.
    second = register.register_best("b80")
    assert second.alias == "challenger"
    assert "Version 2 is challenger and version 1 stays champion:" in second.notes
    assert "not shown to be better than the champion" in second.notes[-1]
    assert register.register_best("b80").alias == "challenger" and len(registered(name)) == 2
    client = mlflow.MlflowClient()
    held = client.get_model_version(name, "2")
    assert held.tags["gate"] == "held back" and held.tags["gate_against"] == "version 1"
    assert held.tags["gate_reasons"] in held.description and held.description.count("### Promotion") == 1
    assert float(held.tags["latency_ms"]) > 0 and float(held.tags["size_mib"]) > 0

    third = register.register_best("b55")
    assert third.alias == "champion" and "Version 3 replaces version 1 as champion:" in third.notes
    tags = client.get_model_version(name, "3").tags
    assert tags["gate"] == "passed" and float(tags["gate_low"]) == 50 and tags["gate_against"] == "version 1"
    assert any("100.00 against 50.00: +50.0 points [+50.0, +50.0]" in line for line in third.figures)

    # Whoever goes back to an earlier version is not overruled, be it by rollback or by hand.
    assert register.rollback(TASKS["extractive-qa"].registered) == ("3", "1")
    back = register.register_best("b55")
    assert back.alias is None and not back.is_new and champion(name) == "1"
    with pytest.raises(UserError, match="no earlier champion than version 1"):
        register.rollback(TASKS["extractive-qa"].registered)


@pytest.mark.long
def test_other_rules_let_a_challenger_through_and_a_dry_run_changes_nothing(world, name, monkeypatch):
    run, folder = world
    run("b60", validation_f1=60.0, technique="standard", test_f1=0.5)
    run("r70", validation_f1=70.0, test_f1=0.495)
    register.register_best("b60")
    assert register.register_best("r70").alias == "challenger"
    monkeypatch.setattr(register.checking, "latency", lambda uri, asked: 10_000.0)
    cheaper = Rules(cheaper_latency=0.5)

    def everything():
        client = mlflow.MlflowClient()
        files = {f: f.stat().st_mtime_ns for f in (folder / "mlruns").rglob("*") if f.is_file()}
        return [v.to_proto() for v in registered(name)], client.get_registered_model(name).aliases, files

    before = everything()
    foreseen = register.register_best("r70", rules=cheaper, dry_run=True)
    assert foreseen.alias == "champion" and foreseen.figures and everything() == before
    slow = register.register_best("r70", rules=Rules(max_latency_ms=0.0), dry_run=True)
    assert slow.alias == "challenger" and "median latency" in slow.notes[-2]
    assert everything() == before
    done = register.register_best("r70", rules=cheaper)
    assert done.alias == "champion" and "its latency is" in done.notes[-1]
    assert mlflow.MlflowClient().get_registered_model(name).aliases == {"champion": 2}
    with pytest.raises(UserError, match="--cheaper_size is 3.0: it must be above 0 and below 1"):
        register.register_best("r70", rules=Rules(cheaper_size=3.0))


def test_a_dry_run_on_an_empty_registry_writes_nothing(world, name):
    run, folder = world
    three_experiments(run)
    files = sorted((folder / "mlruns").rglob("*"))
    done = register.register_best("b60", dry_run=True)
    assert (done.version, done.alias) == (None, "champion")
    assert "8 test questions are answered as in training." in done.notes
    assert not registered(name) and sorted((folder / "mlruns").rglob("*")) == files


def test_where_it_errs_is_logged_with_the_candidate(world, name, tmp_path):
    run, _ = world
    other, best = first_runs(run)
    register.register_best("first")
    folder = Path(mlflow.artifacts.download_artifacts(f"runs:/{best}/error_analysis", dst_path=str(tmp_path)))
    table = pd.read_csv(folder / "slices.csv")
    assert {"question type", "context length", "answerable", "answer length"} == set(table["dimension"])
    assert table[table["dimension"] == "answerable"]["examples"].sum() == 8 and set(table["score"]) == {50.0}
    worst = json.loads((folder / "worst.json").read_text())
    assert len(worst) == 8 and {"question", "prediction", "references"} <= set(worst[0])
    shared = pd.read_csv(folder / "agreement.csv")
    assert list(shared["run"]) == [f"Standard, tiny, {other[:8]}"] and shared["only_second"][0] == 8
    assert "only the other" in (folder / "agreement.md").read_text()
    assert (folder / "slices.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.long
def test_what_cannot_be_compared(world, name):
    run, _ = world
    client = mlflow.MlflowClient()
    three_experiments(run)
    register.register_best("b60")
    # As if it had been trained on other data.
    client.set_model_version_tag(name, "1", "data_fingerprint", "cd" * 32)
    done = register.register_best("b80")
    assert done.alias == "champion" and "scores cannot be compared" in done.notes[-1]
    # As if the champion's run had been deleted: there is nothing to show that the new one is better.
    client.set_model_version_tag(name, "2", "run_id", "0" * 32)
    done = register.register_best("b55")
    assert done.alias == "challenger" and "predictions of version 2 cannot be read" in done.notes[-1]


def test_the_same_training_run_twice_is_registered_once(world, name):
    run, _ = world
    first = run("twice", validation_f1=50.0)
    assert register.register_best("twice").is_new
    mlflow.delete_run(first)
    run("twice", validation_f1=50.0, again=True)
    assert not register.register_best("twice").is_new


def stored(run_id):
    """The folder of the model that training logged."""
    run = mlflow.get_run(run_id)
    return Path(urlparse(versions.logged_model(run).artifact_location).path)


@pytest.mark.long
def test_a_model_that_answers_otherwise_or_does_not_load_is_no_champion(world, name, tiny, tmp_path):
    run, _ = world
    run_id = run("changed", technique="lora")
    other = trained.save(tmp_path, tiny, "lora", seed=7)[0]
    file = "adapter/adapter_model.safetensors"
    shutil.copy(other / file, stored(run_id) / "artifacts" / "bundle" / file)
    for dry_run in (True, False):
        with pytest.raises(
            UserError, match=f"is not loaded: its file artifacts/bundle/{file} was changed since"
        ):
            register.register_best("changed", dry_run=dry_run)
    # As if it had been logged so.
    stored_code.record(versions.logged_model(mlflow.get_run(run_id)).model_id)
    done = register.register_best("changed")
    assert done.alias == "challenger" and champion(name) is None
    assert "does not answer as it did" in done.notes[-1] and "of 8 questions differ" in done.notes[-1]
    tags = mlflow.MlflowClient().get_model_version(name, "1").tags
    assert tags["gate"] == "held back" and "does not answer as it did" in tags["gate_reasons"]

    run_id = run("broken", technique="lora", seed=1)
    (stored(run_id) / "artifacts" / "bundle" / file).write_bytes(b"nothing")
    stored_code.record(versions.logged_model(mlflow.get_run(run_id)).model_id)
    done = register.register_best("broken")
    assert done.alias == "challenger" and "does not load and answer in a fresh process" in done.notes[-1]


def test_a_shared_base_that_was_changed_or_lost_is_noticed(world, name):
    run, folder = world
    run("base")
    (config,) = (folder / "mlruns" / "shared-bases").rglob("base/config.json")
    text = config.read_text()
    try:
        config.write_text(text + " ")
        with pytest.raises(UserError, match="shared base .* was changed"):
            register.register_best("base")
        config.parent.rename(config.parent.with_name("lost"))
        with pytest.raises(UserError, match="cannot be read from the store"):
            register.register_best("base")
    finally:
        config.parent.with_name("lost").rename(config.parent)
        config.write_text(text)
    assert not registered(name)


def test_without_the_data_one_question_is_checked_and_that_is_said(world, name, tmp_path):
    run, folder = world
    run("nodata", technique="standard", data_dir=tmp_path / "missing")
    trained.prepare_data(tmp_path, "v1.1")
    with pytest.raises(UserError, match="holds other data"):
        register.register_best("nodata", data_dir=tmp_path / "data")
    with pytest.raises(UserError, match="no such folder"):
        register.register_best("nodata", data_dir=tmp_path / "missing")
    done = register.register_best("nodata")
    assert done.alias == "champion" and any("one question only" in note for note in done.notes)


def test_no_runs_no_version(world, name):
    with pytest.raises(UserError, match="'empty' holds no finished run"):
        register.register_best("empty")
