"""`load` in Python: models of the store, and folders."""

import mlflow
import pandas as pd
import pytest

from common.api import load
from common.data import prepared
from common.errors import UserError
from tests.support import tampering, trained
from tests.support.questions import EXAMPLES

ROWS = [{name: example[name] for name in ("question", "context")} for example in EXAMPLES]


@pytest.fixture(scope="module")
def run_id(folder, tiny):
    splits, record = prepared.load(folder / "data")
    return trained.log_run(folder, tiny, record, splits["test"].to_list(), experiment="asked")


@pytest.fixture(scope="module")
def model(run_id):
    return load(run_id)


def test_an_answer_is_that_of_the_stored_model(model, run_id):
    served = mlflow.pyfunc.load_model(f"runs:/{run_id}/model").predict(pd.DataFrame(ROWS))
    found = model.predict(ROWS)
    pd.testing.assert_frame_equal(found, served)
    assert model.answer(**ROWS[0]) == served.iloc[0].to_dict()
    assert model.predict(ROWS[0]).iloc[0].to_dict() == served.iloc[0].to_dict()


def test_parameters_are_those_of_a_request(model):
    answer = model.answer(**ROWS[0], top_k=3, null_threshold=None)
    assert len(answer["alternatives"]) == 2
    with pytest.raises(UserError, match="'top' is not a parameter of runs:/.*: there are top_k"):
        model.answer(**ROWS[0], top=3)
    with pytest.raises(UserError, match="top_k is 0"):
        model.answer(**ROWS[0], top_k=0)
    with pytest.raises(UserError, match="takes question and context: call answer"):
        model.classify("It is good.")


def test_the_index_of_a_frame_stays(model):
    frame = pd.DataFrame(ROWS[:2], index=["a", "b"])
    assert list(model.predict(frame).index) == ["a", "b"]


def test_it_reads_well(model, run_id):
    assert repr(model).startswith(f"<runs:/{run_id}/model: .answer(question, context), .predict(rows)")


def test_a_changed_model_is_refused(folder, tiny):
    splits, record = prepared.load(folder / "data")
    other = trained.log_run(folder, tiny, record, splits["test"].to_list(), experiment="changed", seed=3)
    experiment = mlflow.get_run(other).info.experiment_id
    (logged,) = mlflow.MlflowClient().search_logged_models([experiment])
    code = next((tampering.folder_of(f"models:/{logged.model_id}") / "code").rglob("*.py"))
    tampering.changed(code)
    with pytest.raises(UserError, match="was changed since it was logged"):
        load(other)


def test_a_saved_folder_answers_by_this_librarys_code(folder, tiny, tmp_path):
    """Code that lies in the folder is not run."""
    bundle, base, *_ = trained.save(tmp_path, tiny, seed=5)
    with pytest.raises(UserError, match="holds no base|without its base"):
        load(bundle)
    base.rename(bundle / "base")
    stored = tmp_path / "stored"
    (stored / "artifacts").mkdir(parents=True)
    bundle.rename(stored / "artifacts" / "bundle")
    (stored / "model.py").write_text("raise SystemExit('run')")
    found = load(stored)
    assert set(found.answer(**ROWS[0])) == {"answer", "score", "start", "end"}
    assert "top_k" in found.parameters and load(stored / "artifacts" / "bundle").asked == (
        "question",
        "context",
    )


def test_a_saved_classifier_classifies(folder, tiny, tmp_path):
    bundle, base, *_ = trained.save_classifier(tmp_path, tiny)
    base.rename(bundle / "base")
    model = load(str(bundle))
    found = model.classify("I could not stop laughing.", top_k=2)
    assert found["label"] in ("negative", "positive") and len(found["alternatives"]) == 1
    with pytest.raises(UserError, match="takes text: call classify"):
        model.answer(**ROWS[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models:/nothing@champion", "cannot be loaded|leads to no"),
        ("runs:/" + "ab" * 16 + "/model", "cannot be loaded|leads to no"),
        ("bert-squad-qa", "leads to no logged model .* to no folder, and to no model in the hub's cache"),
    ],
)
def test_what_is_not_there_is_named(name, message, folder):
    with pytest.raises(UserError, match=message):
        load(name)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no saved model of this project"):
        load(tmp_path)
    with pytest.raises(UserError, match="holds no saved model of this project"):
        load(tmp_path / "missing")
