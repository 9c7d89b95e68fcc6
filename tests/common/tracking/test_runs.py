"""What MLflow holds after a run that ends well, badly, twice or beside others."""

import json
import math
import signal
from pathlib import Path

import mlflow
import pytest
import yaml
from matplotlib.figure import Figure

from common.errors import UserError
from common.tracking import experiments, runs
from tests.support.processes import process
from tests.support.runs import RECORD, log_finished
from tests.support.stores import in_force


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The folder of a store, in force for this process."""
    folder = tmp_path_factory.mktemp("store")
    with in_force(folder), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        yield folder


def get(run_id):
    return mlflow.get_run(run_id)


def test_a_run_holds_what_it_was_given(store):
    with runs.start("all", "named", {"technique": "LoRA"}) as run:
        assert get(run.id).info.status == "RUNNING"
        run.log_params({"r": 16, "limit": None, "long": "x" * 7000})
        run.log_metrics({"train_loss": 2.5}, step=1)
        run.log_metrics({"train_loss": 1.5}, step=2)
        run.log_dict({"é": [1]}, "config.yaml")
        run.log_dict([{"id": "q"}], "predictions/test.json")
        run.log_figure(Figure(), "curve.png")
        run.log_artifact(Path(__file__), "code")
    held = get(run.id)
    assert (held.info.status, held.info.run_name, run.uri) == ("FINISHED", "named", f"runs:/{run.id}")
    assert held.data.params["r"] == "16" and held.data.params["limit"] == "None"
    assert len(held.data.params["long"]) == 6000
    history = mlflow.MlflowClient().get_metric_history(run.id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.5), (2, 1.5)]
    folder = store / "mlruns" / "all" / run.id / "artifacts"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml",
        "predictions/test.json",
        "curve.png",
        f"code/{Path(__file__).name}",
        "environment.txt",
        "provenance.json",
    }
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) == {"é": [1]}
    assert "mlflow==" in (folder / "environment.txt").read_text()


def test_a_run_tells_where_it_comes_from(store):
    with runs.start("provenance", "x", {"technique": "LoRA", "device": "told"}) as run:
        pass
    tags = get(run.id).data.tags
    # What people filter by; a page full of tags hides it.
    own = {name for name in tags if not name.startswith("mlflow.")}
    assert own == {"git_commit", "git_dirty", "technique", "device"}
    about = mlflow.artifacts.load_dict(f"runs:/{run.id}/provenance.json")
    assert {"version.torch", "version.peft", "python", "cpu", "cpu_count", "threads", "platform"} <= set(
        about
    )
    assert about["version.mlflow"] == mlflow.__version__
    assert tags["device"] == "told"


def test_data_is_an_input_with_our_fingerprint(store):
    hub = RECORD | {"source": "hub", "name": "squad"}
    with runs.start("inputs", "x", {}) as run:
        run.log_data(RECORD, "training")
        run.log_data(RECORD, "testing")
        run.log_data(hub)
    inputs = get(run.id).inputs.dataset_inputs
    contexts = {i.dataset.name: i.tags[0].value for i in inputs}
    assert contexts == {
        "packaged sample/train": "training",
        "packaged sample/test": "testing",
        "squad/train": "training",
    }
    assert {i.dataset.digest for i in inputs} == {RECORD["fingerprint"][:36]}
    test = next(i.dataset for i in inputs if i.dataset.name == "packaged sample/test")
    assert json.loads(test.profile) == {
        "questions": 20,
        "version": "v2.0",
        "fingerprint": RECORD["fingerprint"],
    }
    kinds = {i.dataset.name: type(mlflow.data.get_source(i)).__name__ for i in inputs}
    assert kinds["squad/train"] == "HuggingFaceDatasetSource"


def test_metrics_can_be_about_a_logged_model_and_the_test_data(store):
    with runs.start("linked", "x", {}) as run:
        run.log_data(RECORD, "testing")
        model = mlflow.MlflowClient().create_logged_model(get(run.id).info.experiment_id, "model", run.id)
        run.log_metrics({"test_f1": 61.0, "adapter_mib": 2.0}, model_id=model.model_id)
    metrics = {m.key: m for m in mlflow.get_logged_model(model.model_id).metrics}
    assert metrics["test_f1"].dataset_name == "packaged sample/test"
    assert metrics["adapter_mib"].value == 2.0 and not metrics["adapter_mib"].dataset_name


def test_numbers_that_are_not_finite_are_told_not_logged(store):
    with runs.start("finite", "x", {}) as run:
        run.log_metrics({"train_loss": math.nan, "learning_rate": 0.1}, step=7)
        run.log_metrics({"train_loss": math.inf}, step=8)
        run.log_metrics({"grad_norm": -math.inf}, step=8)
    data = get(run.id).data
    assert data.metrics == {"learning_rate": 0.1}
    assert data.tags["non_finite_metrics"] == "train_loss=nan at step 7; grad_norm=-inf at step 8"


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("too\nbad"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED")],
)
def test_a_run_that_ends_badly_is_marked_and_keeps_what_it_had(store, error, status):
    with pytest.raises(type(error)), runs.start("bad", "x", {}) as run:
        run.log_metrics({"train_loss": 1.0})
        raise error
    held = get(run.id)
    assert (held.info.status, held.data.metrics) == (status, {"train_loss": 1.0})
    assert held.data.tags.get("failure") == ("ValueError: too\nbad" if status == "FAILED" else None)
    assert mlflow.active_run() is None


@pytest.mark.long
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_mark_a_run_killed(store, tmp_path, sent, code):
    body = (
        "import time\n"
        "from common.cli import guarded\n"
        "def work():\n"
        "    store.configure()\n"
        "    with runs.start('signals', 'x', {}) as run:\n"
        "        print(run.id, flush=True)\n"
        "        time.sleep(100)\n"
        "sys.exit(guarded(work))\n"
    )
    one = process(body, tmp_path, MLFLOW_TRACKING_URI=mlflow.get_tracking_uri())
    run_id = one.stdout.readline().strip()
    one.send_signal(sent)
    _, errors = one.communicate(timeout=60)
    assert one.returncode == code and "Traceback" not in errors
    assert get(run_id).info.status == "KILLED"


def test_a_store_that_fails_too_does_not_hide_the_error(store, monkeypatch, capsys):
    def fail(*_):
        raise mlflow.MlflowException("the disk is full")

    with pytest.raises(ValueError, match="bad"), runs.start("hidden", "x", {}) as run:
        monkeypatch.setattr(mlflow.MlflowClient, "set_terminated", fail)
        raise ValueError("bad")
    assert f"could not record how run {run.id} ended: the disk is full" in capsys.readouterr().err


def test_a_run_is_continued_by_its_id(store):
    with pytest.raises(ValueError), runs.start("again", "first", {"technique": "LoRA"}) as run:
        run.log_params({"r": 16})
        run.log_metrics({"train_loss": 2.0, "grad_norm": math.nan}, step=1)
        raise ValueError("bad")
    with runs.start("ignored", "ignored", {"technique": "LoRA"}, run.id) as again:
        assert again.id == run.id and get(run.id).info.status == "RUNNING"
        again.log_params({"r": 32, "alpha": 4})
        again.log_metrics({"train_loss": 1.0}, step=2)
    held = get(run.id)
    assert (held.info.status, held.info.run_name) == ("FINISHED", "first")
    assert held.data.params == {"r": "16", "alpha": "4"}
    assert not {"failure", "non_finite_metrics"} & set(held.data.tags)
    assert len(mlflow.MlflowClient().get_metric_history(run.id, "train_loss")) == 2
    assert mlflow.get_experiment_by_name("ignored") is None


def test_the_run_of_mlflow_run_is_adopted_once(store, monkeypatch, capsys):
    client = mlflow.MlflowClient()
    parent = client.create_run("0", run_name="parent's").info.run_id
    client.log_param(parent, "learning_rate", "1e-1")
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    with runs.start("adopting", "ours", {"technique": "LoRA"}) as run:
        run.log_params({"learning_rate": 0.1, "r": 16})
    assert run.id == parent
    held = get(parent)
    assert (held.info.status, held.info.run_name, held.info.experiment_id) == ("FINISHED", "parent's", "0")
    assert held.data.params == {"learning_rate": "1e-1", "r": "16"}
    assert "'Default'" in (told := capsys.readouterr().err) and "--experiment-name adopting" in told
    with runs.start("adopting", "ours", {}) as second:
        pass
    assert second.id != parent


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_an_unknown_run_is_refused(store, monkeypatch, way):
    unknown = "0" * 32
    if way == "environment":
        monkeypatch.setenv("MLFLOW_RUN_ID", unknown)
    with (
        pytest.raises(UserError, match=f"run {unknown} cannot be continued"),
        runs.start("unknown", "x", {}, unknown if way == "argument" else None),
    ):
        pass


def test_an_experiment_is_made_once(store, monkeypatch):
    first = experiments.experiment_id("../odd name: é")
    assert experiments.experiment_id("../odd name: é") == first
    assert mlflow.get_experiment(first).tags["mlflow.experimentKind"] == "custom_model_development"
    location = mlflow.get_experiment(first).artifact_location
    assert location == (store / "mlruns" / "_odd_name_é").as_uri()

    found, asked = mlflow.get_experiment_by_name, []

    def slower_than_another_process(name):
        asked.append(name)
        return None if len(asked) == 1 else found(name)

    monkeypatch.setattr(mlflow, "get_experiment_by_name", slower_than_another_process)
    assert experiments.experiment_id("../odd name: é") == first


def test_a_deleted_experiment_is_refused(store):
    mlflow.delete_experiment(experiments.experiment_id("gone"))
    with pytest.raises(UserError, match="'gone' is deleted: restore it"):
        experiments.experiment_id("gone")


def test_the_environment_names_the_experiment_as_for_mlflows_own_clients(store, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    assert experiments.experiment_name(None, "default") == "default"
    id_ = experiments.experiment_id("of an id")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", id_)
    assert experiments.experiment_name(None, "default") == "of an id"
    assert experiments.experiment_name("given", "default") == "given"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of an id")
    assert experiments.experiment_name(None, "default") == "of an id"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
    with pytest.raises(UserError, match="'named', and MLFLOW_EXPERIMENT_ID .* is the experiment 'of an id'"):
        experiments.experiment_name(None, "default")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    assert experiments.experiment_name(None, "default") == "named"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "987654")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    with pytest.raises(UserError, match="MLFLOW_EXPERIMENT_ID is '987654'"):
        experiments.experiment_name(None, "default")


def test_a_finished_run_is_found_by_its_fingerprint(store):
    tags = {"run_fingerprint": "f1"}
    assert runs.finished_run("no such experiment", "f1") is None
    with pytest.raises(ValueError), runs.start("finished", "x", {"technique": "LoRA", **tags}):
        raise ValueError
    assert runs.finished_run("finished", "f1") is None
    done = log_finished(experiment="finished", tags=tags)
    assert runs.finished_run("finished", "f1") == done
    assert runs.finished_run("finished", "f2") is None
    newer = log_finished(experiment="finished", tags=tags)
    assert runs.finished_run("finished", "f1") == newer
    # Without its artifacts a run is of no use to anyone.
    (store / "mlruns" / "finished" / newer / "artifacts" / "predictions" / "test.json").unlink()
    assert runs.finished_run("finished", "f1") == done


def test_runs_gives_finished_log_finisheds_newest_first(store):
    other = RECORD | {"fingerprint": "cd" * 32}
    first = log_finished("LoRA", (1.0, 0.5), experiment="table", learning_rate="1e-1")
    second = log_finished("IA3", (0.0, 0.5), experiment="table", record=other)
    with runs.start("table", "untested", {"technique": "LoRA"}) as run:
        run.log_metrics({"train_loss": 1.0, "learning_rate": 1.0})
    with pytest.raises(ValueError), runs.start("table", "failed", {"technique": "LoRA"}) as run:
        run.log_metrics({"test_f1": 1.0})
        raise ValueError
    table = runs.finished_runs("table")
    assert list(table["run_id"]) == [second, first]
    assert list(table["technique"]) == ["IA3", "LoRA"]
    assert list(table["learning_rate"]) == [0.001, 0.1]
    assert list(table["test_f1"]) == [25.0, 75.0]
    assert table["max_train_samples"].isna().all() and table["peak_memory_mib"].isna().all()
    assert {*runs.TAGS, *runs.PARAMETERS, *runs.METRICS} <= set(table)
    assert "train_loss" not in table
    assert list(runs.finished_runs("table", other["fingerprint"])["run_id"]) == [second]
    assert "table" in runs.experiments_with_runs() and "untested" not in runs.experiments_with_runs()


def test_no_runs_are_an_empty_table_with_all_columns(store):
    for table in (runs.finished_runs("no such experiment"), runs.finished_runs("Default", "00")):
        assert table.empty and {*runs.TAGS, *runs.PARAMETERS, *runs.METRICS} <= set(table)


def test_predictions_come_back_or_are_missed_by_name(store):
    done = log_finished(experiment="predictions", f1=(1.0, 0.5))
    assert [(row["id"], row["f1"]) for row in runs.predictions(done)] == [("q0", 1.0), ("q1", 0.5)]
    file = store / "mlruns" / "predictions" / done / "artifacts" / "predictions" / "test.json"
    file.write_text("[{")
    with pytest.raises(UserError, match=f"Run {done} has no readable predictions/test.json"):
        runs.predictions(done)
    file.unlink()
    with pytest.raises(UserError, match=f"Run {done} has no readable predictions/test.json"):
        runs.predictions(done)


def test_a_run_whose_maker_was_killed_is_found_by_its_ticket(store):
    first = runs.create("tickets", "LoRA", "t1")
    assert runs.create("tickets", "LoRA", "t1") == first != runs.create("tickets", "LoRA", "t2")
