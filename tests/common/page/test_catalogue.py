"""Which models the page offers, and which of them stay loaded."""

import re

import mlflow
import pandas as pd
import pytest

from common.errors import UserError
from common.page import app, catalogue
from common.page.catalogue import Catalogue, Entry
from tests.common.page.conftest import NAME, URIS, ask


def test_an_alias_that_moves_is_followed(world):
    store = mlflow.MlflowClient()
    found = catalogue.entries()
    assert [(e.uri, e.aliases) for e in found] == [(URIS[0], ("champion",)), (URIS[1], ("challenger",))]
    store.set_registered_model_alias(NAME, "champion", "2")
    try:
        assert [e.uri for e in catalogue.entries()] == URIS[::-1]
        (entry,) = catalogue.entries([f"models:/{NAME}@champion"])
        assert entry.uri == URIS[1]
    finally:
        store.set_registered_model_alias(NAME, "champion", "1")


def test_models_by_version_run_and_id_each_once(world):
    run = f"runs:/{world[0]}/model"
    id_ = mlflow.get_run(world[0]).outputs.model_outputs[0].model_id
    found = catalogue.entries([URIS[1], f"models:/{NAME}@challenger", run, f"models:/{id_}"])
    assert [e.uri for e in found] == [URIS[1], run, f"models:/{id_}"]
    assert found[1].facts["technique"] and float(found[1].facts["test_f1"]) == 40.0
    assert ask(app.create_app(Catalogue([run])).test_client(), models=[run])[0]["answer"] is not None


WRONG = [
    "champion",
    "models:/other@champion",
    f"models:/{NAME}/99",
    f"models:/{NAME}@nobody",
    "runs:/00/model",
    "/etc",
]


@pytest.mark.parametrize("uri", WRONG)
def test_models_that_are_not_there_are_the_users_mistake(world, uri):
    with pytest.raises(UserError, match=re.escape(uri)):
        catalogue.entries([uri])


def test_a_model_for_another_task_is_refused(world):
    store = mlflow.MlflowClient()
    store.set_model_version_tag(NAME, "2", "task", "classification")
    try:
        with pytest.raises(UserError, match="classification"):
            catalogue.entries([URIS[1]])
    finally:
        store.set_model_version_tag(NAME, "2", "task", "extractive-qa")


def test_few_models_stay_loaded_those_asked_last():
    loads = []

    class Model:
        def predict(self, frame, params):
            return pd.DataFrame([{"answer": "", "score": 1.0, "start": -1, "end": -1}])

    def load(uri):
        loads.append(uri)
        if uri == "broken" and loads.count(uri) == 1:
            raise OSError("gone\nfar away")
        return Model()

    kept = Catalogue(load=load)

    def asked(uri):
        return kept.ask(Entry(uri, uri, (), {}), "Who?", "Nobody.", 1)

    names = [str(i) for i in range(catalogue.KEPT)]
    assert all(asked(name).loading_seconds > 0 for name in names)
    assert asked("0").loading_seconds == 0.0
    asked("new")
    assert asked("0").loading_seconds == 0.0 and asked("1").loading_seconds > 0
    assert loads == [*names, "new", "1"]
    with pytest.raises(catalogue.Unanswered, match=r"^OSError: gone$"):
        asked("broken")
    assert asked("broken").answers[0]["answer"] == ""
