"""What is moved once more: what came after the first time comes along, and one version alone becomes champion."""

from pathlib import Path

import mlflow
import pytest

from common.data import prepared
from common.errors import UserError
from common.registry import champion, register, transfer
from common.serving import stored_code
from common.tasks.table import TASKS
from common.tracking import experiments
from tests.common.registry.test_transfer import answers, inside, models, of_run
from tests.support import stores, trained

NAME = TASKS["extractive-qa"].registered
VERSION = f"models:/{NAME}/1"


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny):
    """(URI of a store with a champion, its run, URI of the store that its run was moved into before it was registered)."""
    folder, early = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("early")
    with stores.in_force(folder) as uri:
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        run_id = trained.log_run(folder, tiny, record, examples, experiment="moving")
        early = f"sqlite:///{early / 'mlflow.db'}"
        assert transfer.transfer(f"runs:/{run_id}", uri, early).models == 1
        with trained.checked_here():
            register.register_best("moving")
        yield uri, run_id, early


def test_what_was_registered_after_its_run_was_moved_comes_along(source):
    uri, run_id, early = source
    with inside(uri) as client:
        expected, original = answers(VERSION), of_run(client, run_id)
    moved = transfer.transfer(VERSION, uri, early)
    assert moved == transfer.Moved(moved.run_id, 2, VERSION, was_there=False)
    with inside(early) as client:
        assert models(client, moved.run_id).keys() == {"model", "self-contained"}
        copy = of_run(client, moved.run_id)
        assert answers(VERSION) == expected and copy["outputs"] == original["outputs"]
        # What registering added to the run.
        assert any("error_analysis" in name for name, _ in copy["artifacts"])
        assert copy["artifacts"] == original["artifacts"]
    assert transfer.transfer(VERSION, uri, early).was_there


def test_a_version_whose_run_was_deleted_there_comes_anew(source, target):
    uri = source[0]
    first = transfer.transfer(VERSION, uri, target)
    with inside(target) as client:
        client.delete_run(first.run_id)
    again = transfer.transfer(VERSION, uri, target)
    assert again.version == f"models:/{NAME}/2" and again.run_id != first.run_id and not again.was_there
    with inside(target) as client:
        assert client.get_model_version(NAME, "2").run_id == again.run_id
        assert stored_code.load(again.version)


def test_the_moved_version_is_champion_and_no_rival_of_a_killed_promotion(source, target):
    uri = source[0]
    with inside(target) as client:
        client.create_registered_model(NAME)
        client.create_model_version(NAME, f"models:/{client.create_logged_model('0').model_id}")
        client.set_registered_model_alias(NAME, "champion", "1")
    assert transfer.transfer(VERSION, uri, target).version == f"models:/{NAME}/2"
    with inside(target) as client:
        model_id = client.create_logged_model("0").model_id
        client.create_model_version(NAME, f"models:/{model_id}", tags={champion.BEFORE: "1"})
    transfer.transfer(VERSION, uri, target, "champion")
    with inside(target) as client:
        assert client.get_registered_model(NAME).aliases == {"champion": 2}
        # The rival was never champion.
        assert champion.rollback(client, NAME) == ("2", "1")


def test_another_champion_is_told(source, target, monkeypatch):
    def another(client, name, number, judge, note):
        return champion.Settled(None, judge(number, None), None)

    monkeypatch.setattr(champion, "promote", another)
    with pytest.raises(UserError, match=f"Version 1 of {NAME} was moved, but another one became champion"):
        transfer.transfer(VERSION, source[0], target, "champion")


def test_an_alias_that_moves_meanwhile_changes_nothing(source, target, monkeypatch):
    uri = source[0]
    read = mlflow.MlflowClient.get_registered_model

    def moved_meanwhile(client, name):
        monkeypatch.undo()
        client.delete_registered_model_alias(name, "champion")
        return read(client, name)

    monkeypatch.setattr(mlflow.MlflowClient, "get_registered_model", moved_meanwhile)
    try:
        moved = transfer.transfer(f"models:/{NAME}@champion", uri, target)
    finally:
        monkeypatch.undo()
        with inside(uri) as client:
            client.set_registered_model_alias(NAME, "champion", "1")
    assert moved.version == VERSION and moved.models == 2


def test_an_artifact_that_was_changed_on_the_way_is_named(source, target, monkeypatch):
    log = mlflow.MlflowClient.log_artifacts

    def damaging(client, run_id, folder, path=None):
        if path is None:
            file = Path(folder) / "config.yaml"
            content = file.read_bytes()
            file.write_bytes(content[:-1])
            log(client, run_id, folder)
            file.write_bytes(content)
        else:
            log(client, run_id, folder, path)

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifacts", damaging)
    with pytest.raises(UserError, match=f"copy of run {source[1]} .* artifact config.yaml was changed"):
        transfer.transfer(f"runs:/{source[1]}", source[0], target)


@pytest.fixture
def unfinished(tmp_path):
    """(URI of a store, id of a run that was killed in it)."""
    with stores.in_force(tmp_path) as uri:
        client = mlflow.MlflowClient()
        run_id = client.create_run(experiments.experiment_id("long")).info.run_id
        client.log_param(run_id, "rank", 8)
        client.log_metric(run_id, "loss", 2.0, timestamp=1, step=0)
        client.log_text(run_id, "half", "log.txt")
        client.set_terminated(run_id, "KILLED")
    return uri, run_id


def test_a_run_that_went_on_since_is_brought_up_to_date(unfinished, target):
    uri, run_id = unfinished
    first = transfer.transfer(f"runs:/{run_id}", uri, target)
    assert transfer.transfer(f"runs:/{run_id}", uri, target).was_there
    with inside(uri) as client:
        client.update_run(run_id, "RUNNING")
        client.log_param(run_id, "epochs", 2)
        client.log_metric(run_id, "loss", 1.0, timestamp=2, step=1)
        client.log_text(run_id, "whole", "log.txt")
        client.set_tag(run_id, "note", "resumed")
        client.set_terminated(run_id)
        own = of_run(client, run_id)
    again = transfer.transfer(f"runs:/{run_id}", uri, target)
    assert again == transfer.Moved(first.run_id, 0)
    with inside(target) as client:
        copy = of_run(client, first.run_id)
        assert copy == own and copy["status"] == "FINISHED" and len(copy["metrics"]["loss"]) == 2
        assert mlflow.artifacts.load_text(f"runs:/{first.run_id}/log.txt") == "whole"
    # The copy that comes home changes nothing there.
    with inside(uri) as client:
        client.set_terminated(run_id, "FAILED")
        own = of_run(client, run_id)
    assert transfer.transfer(f"runs:/{first.run_id}", target, uri).run_id == run_id
    with inside(uri) as client:
        assert of_run(client, run_id) == own
