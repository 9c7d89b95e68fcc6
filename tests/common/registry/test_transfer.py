"""A run or a version in another store: the same in everything but its ids, checked, once, and whole or not there."""

from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Metric

from common.data import prepared
from common.errors import UserError
from common.models.bundles import read_reference
from common.registry import register, transfer, versions
from common.registry.transfer import ORIGIN
from common.serving import stored_code
from common.serving.model_logging import SHARED_BASES
from common.tasks.table import TASKS
from tests.support import stores, trained
from tests.support.questions import EXAMPLES

NAME = TASKS["extractive-qa"].registered
ASKED = [{name: example[name] for name in ("question", "context")} for example in EXAMPLES]


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny):
    """(URI of a store, id of the run behind its champion)."""
    folder = tmp_path_factory.mktemp("source")
    with stores.in_force(folder) as uri:
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        run_id = trained.log_run(folder, tiny, record, examples, experiment="moving")
        client = mlflow.MlflowClient()
        curve = [Metric("loss", 1 / (step + 1), 1_000 + step, step) for step in range(0, 9, 3)]
        client.log_batch(run_id, metrics=[*curve, Metric("odd", float("nan"), 5, 0)])
        client.set_tag(run_id, "mlflow.parentRunId", "0" * 32)
        with trained.checked_here():
            register.register_best("moving")
        yield uri, run_id


@contextmanager
def inside(uri):
    """This store in force."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield mlflow.MlflowClient()
    finally:
        mlflow.set_tracking_uri(before)


def answers(uri):
    return stored_code.load(uri).predict(pd.DataFrame(ASKED), params={"top_k": 2}).to_dict("records")


def models(client, run_id):
    run = client.get_run(run_id)
    found = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    return {model.name: client.get_logged_model(model.model_id) for model in found}


def of_run(client, run_id):
    """All that a copy must have in common with the run."""
    run = client.get_run(run_id)
    artifacts, left = [], [""]
    while left:
        for each in client.list_artifacts(run_id, left.pop()):
            left += [each.path] if each.is_dir else []
            artifacts += [] if each.is_dir else [(each.path, each.file_size)]
    return {
        "name": run.info.run_name,
        "times": (run.info.start_time, run.info.end_time),
        "status": run.info.status,
        "experiment": client.get_experiment(run.info.experiment_id).name,
        "params": run.data.params,
        "tags": {n: v for n, v in run.data.tags.items() if n not in (ORIGIN, "mlflow.parentRunId")},
        "metrics": {
            name: [(m.step, m.timestamp, str(m.value)) for m in client.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "data": sorted(
            (d.dataset.name, d.dataset.digest, d.dataset.source, d.dataset.profile, [t.value for t in d.tags])
            for d in run.inputs.dataset_inputs
        ),
        "artifacts": sorted(artifacts),
        "outputs": [output.step for output in run.outputs.model_outputs],
    }


def of_models(client, run_id):
    own = ("mlflow.modelVersions", ORIGIN)
    return {
        name: {
            "params": model.params,
            "tags": {
                n: v for n, v in model.tags.items() if n not in own and not n.startswith(stored_code.FILES)
            },
            "metrics": sorted((m.key, m.value, m.step, m.timestamp, m.dataset_name) for m in model.metrics),
            "status": str(model.status),
        }
        for name, model in models(client, run_id).items()
    }


def test_a_run_is_the_same_in_another_store_and_answers_the_same(source, target):
    uri, run_id = source
    with inside(uri) as client:
        own, theirs, of_the_models = of_run(client, run_id), models(client, run_id), of_models(client, run_id)
        expected = {name: answers(f"models:/{model.model_id}") for name, model in theirs.items()}
        before = client.get_run(run_id)
    moved = transfer.transfer(f"runs:/{run_id}", uri, target)
    assert moved == transfer.Moved(moved.run_id, 2) and moved.run_id != run_id
    with inside(target) as client:
        assert of_run(client, moved.run_id) == own
        assert len(own["metrics"]["loss"]) == 3 and own["metrics"]["odd"] == [(0, 5, "nan")]
        assert own["data"] and own["artifacts"] and own["outputs"]
        tags = client.get_run(moved.run_id).data.tags
        assert tags[ORIGIN] == run_id and "mlflow.parentRunId" not in tags
        assert of_models(client, moved.run_id) == of_the_models and any(
            m["metrics"] for m in of_the_models.values()
        )
        made = models(client, moved.run_id)
        assert made.keys() == {"model", "self-contained"}
        assert {name: answers(f"models:/{model.model_id}") for name, model in made.items()} == expected
        assert not client.search_registered_models()
    with inside(uri) as client:
        assert client.get_run(run_id).data.tags == before.data.tags


def test_the_copy_refers_to_its_own_store_alone(source, target, tmp_path):
    """Its base is a copy too, once for several runs; nothing of it names a run of the first store."""
    uri, run_id = source
    moved = transfer.transfer(f"runs:/{run_id}", uri, target)
    with inside(target) as client:
        logged = models(client, moved.run_id)["model"]
        files = Path(
            mlflow.artifacts.download_artifacts(f"models:/{logged.model_id}", dst_path=str(tmp_path))
        )
        reference = read_reference(files / "artifacts" / "bundle")
        (base,) = client.search_runs([client.get_experiment_by_name(SHARED_BASES).experiment_id])
        assert reference["uri"] == f"runs:/{base.info.run_id}/base"
        assert reference["fingerprint"] == logged.tags["base_fingerprint"]
        described = (files / "MLmodel").read_text()
        assert logged.model_id in described and run_id not in described
        # As `mlflow models serve` loads it, which asks for no record.
        served = mlflow.pyfunc.load_model(f"models:/{logged.model_id}").predict(pd.DataFrame(ASKED[:1]))
        assert served.iloc[0]["answer"] == answers(f"models:/{logged.model_id}")[0]["answer"]
        # The copy is guarded as the original is.
        stored = Path(logged.artifact_location.removeprefix("file://")) / "artifacts" / "bundle" / "base.json"
        content = stored.read_text()
        try:
            stored.write_text(content.replace("runs:/", "runs:/ "))
            with pytest.raises(UserError, match=r"its file artifacts/bundle/base.json was changed"):
                stored_code.load(f"models:/{logged.model_id}")
        finally:
            stored.write_text(content)


def test_a_version_comes_with_its_run_and_an_alias_only_if_asked(source, target):
    uri, run_id = source
    with inside(uri) as client:
        own = client.get_model_version_by_alias(NAME, "champion")
        about = client.get_registered_model(NAME).description
        expected = answers(f"models:/{NAME}@champion")
    moved = transfer.transfer(f"models:/{NAME}@champion", uri, target)
    assert moved.version == f"models:/{NAME}/1"
    with inside(target) as client:
        version = client.get_model_version(NAME, "1")
        assert client.get_registered_model(NAME).aliases == {} and version.description == own.description
        assert client.get_registered_model(NAME).description == about
        assert version.run_id == version.tags["run_id"] == moved.run_id
        left_out = {"run_id", "champion_since", "champions_before", "rolled_back", ORIGIN}
        assert {n: v for n, v in version.tags.items() if n not in left_out} == {
            n: v for n, v in own.tags.items() if n not in left_out
        }
        assert not {"champion_since", "champions_before"} & version.tags.keys()
        assert answers(f"models:/{NAME}/1") == expected
        run = client.get_run(moved.run_id)
        assert versions.of_run(client, run, TASKS["extractive-qa"]).version == version.version
    again = transfer.transfer(f"models:/{NAME}/1", uri, target, "champion")
    assert again == transfer.Moved(moved.run_id, 2, moved.version, was_there=True)
    with inside(target) as client:
        assert client.get_registered_model(NAME).aliases == {"champion": 1}
        assert len(client.search_model_versions(f"name = '{NAME}'")) == 1
    transfer.transfer(f"models:/{NAME}/1", uri, target, "staging")
    with inside(target) as client:
        assert client.get_registered_model(NAME).aliases == {"champion": 1, "staging": 1}


def test_a_copy_that_comes_home_is_the_original(source, target):
    uri, run_id = source
    moved = transfer.transfer(f"models:/{NAME}/1", uri, target)
    back = transfer.transfer(f"models:/{NAME}/1", target, uri)
    assert back == transfer.Moved(run_id, 2, f"models:/{NAME}/1", was_there=True) and moved.run_id != run_id
    with inside(uri) as client:
        assert len(client.search_model_versions(f"name = '{NAME}'")) == 1


class Cut(BaseException):
    """Stands for a kill."""


LATER = ("log_inputs", "log_artifacts", "finalize_logged_model", "log_outputs", "set_terminated")


@pytest.mark.parametrize(
    "step", ["log_model_artifacts", *(pytest.param(name, marks=pytest.mark.long) for name in LATER)]
)
def test_an_interrupted_transfer_shows_nothing_and_is_completed(source, target, monkeypatch, step):
    uri, run_id = source

    def cut(*_, **__):
        raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(mlflow.MlflowClient, step, cut)
        transfer.transfer(f"models:/{NAME}/1", uri, target)
    with inside(target) as client:
        assert not client.search_registered_models()
        statuses = [
            run.info.status for run in mlflow.search_runs(experiment_names=["moving"], output_format="list")
        ]
        assert statuses == ["RUNNING"]
    moved = transfer.transfer(f"models:/{NAME}/1", uri, target)
    assert not moved.was_there and moved.models == 2
    with inside(uri) as client:
        own = of_run(client, run_id), of_models(client, run_id)
    with inside(target) as client:
        assert (of_run(client, moved.run_id), of_models(client, moved.run_id)) == own
        (run,) = mlflow.search_runs(experiment_names=["moving"], output_format="list")
        assert run.info.run_id == moved.run_id
        assert len(client.search_logged_models([run.info.experiment_id])) == 2
        assert stored_code.load(moved.version)


def test_between_run_and_version_too(source, target, monkeypatch):
    uri, _ = source

    def cut(*_, **__):
        raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(mlflow.MlflowClient, "create_model_version", cut)
        transfer.transfer(f"models:/{NAME}/1", uri, target)
    moved = transfer.transfer(f"models:/{NAME}/1", uri, target)
    assert moved.was_there and moved.version == f"models:/{NAME}/1"


def test_a_model_whose_files_were_changed_is_not_moved(source, tmp_path):
    uri, run_id = source
    target = f"sqlite:///{tmp_path / 'target.db'}"
    with inside(uri) as client:
        location = models(client, run_id)["self-contained"].artifact_location
    file = Path(location.removeprefix("file://")) / "model.py"
    content = file.read_text()
    try:
        file.write_text(content + "\n# changed\n")
        with pytest.raises(UserError, match=r"its file model.py was changed"):
            transfer.transfer(f"runs:/{run_id}", uri, target)
    finally:
        file.write_text(content)
    # Nothing was written.
    assert not Path(target.removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize(
    ("uri", "alias", "reason"),
    [
        ("models:/other/1", None, "other"),
        ("runs:/" + "0" * 32, None, "was deleted"),
        ("bert-squad-qa", None, "write runs:/RUN_ID, models:/NAME/VERSION"),
        ("models:/m-" + "0" * 32, None, "write runs:/RUN_ID, models:/NAME/VERSION"),
        ("runs:/RUN", "champion", "--alias champion is for versions"),
    ],
)
def test_what_cannot_be_moved_is_said(source, target, uri, alias, reason):
    with pytest.raises(UserError, match=reason):
        transfer.transfer(uri.replace("RUN", source[1]), source[0], target, alias)


def test_a_store_is_not_moved_into_itself(source):
    with pytest.raises(UserError, match="the same store"):
        transfer.transfer(f"runs:/{source[1]}", source[0], source[0])


def test_a_store_that_does_not_exist_is_not_made(tmp_path, target):
    missing = tmp_path / "none.db"
    with pytest.raises(UserError, match="there is no such store"):
        transfer.transfer("runs:/" + "0" * 32, f"sqlite:///{missing}", target)
    assert not missing.exists()


def test_a_run_that_has_not_ended_stays(source, target):
    uri, run_id = source
    with inside(uri) as client:
        running = client.create_run(client.get_run(run_id).info.experiment_id).info.run_id
    with pytest.raises(UserError, match="has not ended"):
        transfer.transfer(f"runs:/{running}", uri, target)
    with inside(uri) as client:
        client.delete_run(running)
    with pytest.raises(UserError, match="mlflow runs restore"):
        transfer.transfer(f"runs:/{running}", uri, target)
