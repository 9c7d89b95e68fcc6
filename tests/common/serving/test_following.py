"""A server follows an alias: who gets which model, what is freed, and what a version that does not open changes."""

import gc
import logging
import sys
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pandas as pd
import pytest

from common.errors import UserError
from common.serving import following
from common.serving.following import Answering, registered
from common.serving.observed import Observed
from tests.support import stores, trained
from tests.support.questions import EXAMPLES

ALIAS = "models:/qa@champion"


class Opened:
    """In the place of a loaded model."""

    def __init__(self, name):
        self.name = name


def test_the_memory_of_a_stored_model_is_freed(tmp_path, tiny, monkeypatch):
    """MLflow's own objects: what the server was started with is gone after the switch, although its application keeps it."""
    with stores.in_force(tmp_path):
        record, client, ids = trained.prepare_data(tmp_path), mlflow.MlflowClient(), []
        client.create_registered_model("qa")
        for seed in (0, 1):
            run_id = trained.log_run(tmp_path, tiny, record, EXAMPLES, experiment="e", seed=seed)
            experiment = mlflow.get_run(run_id).info.experiment_id
            found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
            ids.append(found[0].model_id)
            client.create_model_version("qa", f"models:/{ids[-1]}", run_id)
        client.set_registered_model_alias("qa", "champion", "2")
        folder = mlflow.artifacts.download_artifacts("models:/qa/1")
        given = mlflow.pyfunc.load_model(folder)
        answering = Answering(Path(folder), ALIAS)
        assert answering.version == "1" and list(answering.columns) == ["question", "context"]
        asked = pd.DataFrame([{name: e[name] for name in answering.columns} for e in EXAMPLES[:4]])
        before = answering.of_request(given)[0]
        held = weakref.ref(before._model_impl.python_model.answerer.model)
        answers = before.predict(asked)["answer"].tolist()
        answering.look()
        assert before.predict(asked)["answer"].tolist() == answers and answering.version == "2"
        after = answering.of_request(given)[0]
        alone = following.open_version("models:/qa/2").predict(asked)["answer"].tolist()
        assert after.predict(asked)["answer"].tolist() == alone != answers
        assert held() is not None
        del before
        gc.collect()
        assert held() is None and given is not None


@pytest.fixture
def registry(monkeypatch):
    """Version → id of its logged model; `names`: the version that the alias names."""
    found = SimpleNamespace(names="1", ids={"1": "m-a", "2": "m-b", "3": "m-a"}, broken=False)

    class Client:
        def get_model_version_by_alias(self, name, alias):
            assert (name, alias) == ("qa", "champion")
            if found.broken:
                raise ConnectionError("the store is away")
            return SimpleNamespace(version=found.names, source=f"models:/{found.ids[found.names]}")

    monkeypatch.setattr(mlflow, "MlflowClient", Client)
    return found


@pytest.fixture
def answering(monkeypatch, tmp_path):
    about = SimpleNamespace(
        model_id="m-a", get_input_schema=lambda: SimpleNamespace(required_input_names=lambda: ["text"])
    )
    monkeypatch.setattr(following.Model, "load", lambda folder: about)
    (tmp_path / "registered_model_meta").write_text("model_name: qa\nmodel_version: '1'\n")
    return Answering(tmp_path, ALIAS)


def test_new_requests_get_the_new_model_and_begun_ones_keep_theirs(answering, registry, caplog):
    caplog.set_level(logging.WARNING)
    first = Opened("first")
    gone = weakref.ref(first)
    begun, version = answering.of_request(first)
    assert (begun.name, version) == ("first", "1")
    registry.names, opened = "2", []
    answering.look(lambda uri: opened.append(uri) or Opened("second"))
    assert opened == ["models:/qa/2"]
    assert (begun.name, version) == ("first", "1")
    found, version = answering.of_request(first)
    assert (found.name, version) == ("second", "2") and answering.version == "2"
    assert "version 2 answers from now on, in the place of 1" in caplog.text
    # The application keeps the object that it was given; what it held goes with the last request.
    held = weakref.ref(begun)
    del begun
    gc.collect()
    assert held() is None and gone() is first and not vars(first)


def test_the_model_that_answers_is_not_opened_again(answering, registry):
    first, opened = Opened("first"), []
    answering.of_request(first)
    for registry.names in ("1", "3"):
        answering.look(lambda uri: opened.append(uri) or Opened("again"))
        assert answering.of_request(first)[0].name == "first"
    # The same logged model under another number.
    assert answering.version == "3" and not opened


def test_a_version_that_does_not_open_changes_nothing_and_is_reported_once(
    answering, registry, caplog, monkeypatch
):
    caplog.set_level(logging.WARNING)
    answering.of_request(Opened("first"))
    registry.names, tried = "2", []

    def broken(uri):
        tried.append(uri)
        raise UserError("its file weights was changed")

    for _ in range(3):
        answering.look(broken)
    assert answering.of_request(None)[0].name == "first" and answering.version == "1"
    assert tried == ["models:/qa/2"] and caplog.text.count("its file weights was changed") == 1
    assert "version 1 goes on" in caplog.text
    monkeypatch.setattr(following, "RETRY", -1.0)
    answering._retry = 0.0
    answering.look(lambda uri: Opened("mended"))
    assert answering.version == "2"
    # And back.
    registry.names = "1"
    answering.look(lambda uri: Opened("first again"))
    assert answering.of_request(None)[0].name == "first again" and answering.version == "1"


def test_a_store_that_is_away_for_a_moment_does_not_try_a_broken_version_again(answering, registry, caplog):
    answering.of_request(Opened("first"))
    registry.names, tried = "2", []

    def broken(uri):
        tried.append(uri)
        raise UserError("its file weights was changed")

    for registry.broken in (False, True, False):
        answering.look(broken)
    assert tried == ["models:/qa/2"] and caplog.text.count("weights was changed") == 1


def test_a_server_is_ready_though_the_store_does_not_answer(answering, monkeypatch):
    """An outage of the store must not keep new servers from answering with the model that they have."""
    asked = threading.Event()
    monkeypatch.setattr(following, "PATIENCE", 0.05)
    # The thread ends with the test.
    monkeypatch.setattr(answering, "look", lambda: asked.wait(60) and sys.exit())
    answering.of_request(Opened("first"))
    answering.begin(Observed(None))
    until(lambda: answering.settled)
    assert not asked.is_set()
    asked.set()


def until(condition):
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_it_looks_again_after_a_while_and_at_once_when_told(answering, registry, monkeypatch):
    answering.of_request(Opened("first"))
    broken = []

    def opened(uri):
        if broken:
            raise UserError(broken[0])
        return Opened(uri)

    monkeypatch.setattr(following, "open_version", opened)
    answering._every = 0.05
    answering.begin(Observed(None))
    until(lambda: answering.settled)
    registry.names = "2"
    until(lambda: answering.version == "2")
    # From the next look on only when it is told; a version that did not open is tried again then, long before RETRY.
    broken.append("its file weights was changed")
    answering._every = 3600
    answering.look_now()
    registry.names = "1"
    answering.look_now()
    until(lambda: answering._failed == "1")
    broken.clear()
    answering.look_now()
    until(lambda: answering.version == "1")


@pytest.mark.parametrize("seconds", ["0", "soon", "nan", "-5", "1e9"])
def test_an_interval_that_is_no_number_of_seconds_is_refused(seconds, answering, tmp_path, monkeypatch):
    monkeypatch.setenv("SERVING_FOLLOW_SECONDS", seconds)
    with pytest.raises(
        UserError, match="SERVING_FOLLOW_SECONDS is .*; it must be a number of seconds, 0.1 to"
    ):
        Answering(tmp_path, ALIAS)


def test_a_store_that_is_away_changes_nothing(answering, registry, caplog):
    answering.of_request(Opened("first"))
    registry.broken = True
    for _ in range(3):
        answering.look(pytest.fail)
    assert answering.version == "1" and caplog.text.count("the store is away") == 1
    registry.broken, registry.names = False, "2"
    answering.look(lambda uri: Opened("second"))
    assert answering.version == "2"


def test_the_version_is_counted(answering, registry):
    class Counted(Observed):
        def answers(self, version):
            seen.append(version)

    seen = []
    answering.of_request(Opened("first"))
    answering._observed = Counted(None)
    registry.names = "2"
    for _ in range(2):
        answering.look(lambda uri: Opened("second"))
    assert seen == ["2"]


def test_a_server_that_follows_nothing_leaves_the_model_as_it_is(answering, tmp_path):
    plain, first = Answering(tmp_path), Opened("first")
    assert plain.of_request(first) == (first, "1") and first.name == "first" and plain.settled
    assert not answering.settled


@pytest.mark.parametrize("alias", ["qa@champion", "models:/qa/2", "models:/qa@", "runs:/1/model"])
def test_what_is_no_alias_is_refused(alias, answering, tmp_path):
    with pytest.raises(UserError, match="SERVING_FOLLOW is .*; write models:/NAME@ALIAS"):
        Answering(tmp_path, alias)


def test_a_model_that_is_not_registered_is_known_by_its_id(tmp_path):
    assert registered(tmp_path) == ("", "")
    (tmp_path / "registered_model_meta").write_text(": : [")
    assert registered(tmp_path) == ("", "")
