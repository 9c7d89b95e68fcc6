"""`register` in Python: the command's arguments, and its outcome."""

import mlflow
import pytest

from common.api import load, register
from common.data import prepared
from common.errors import UserError
from tests.support import trained


@pytest.fixture(scope="module")
def run_id(folder, tiny):
    splits, record = prepared.load(folder / "data")
    return trained.log_run(folder, tiny, record, splits["test"].to_list(), experiment="best")


def test_a_dry_run_writes_nothing(run_id):
    with trained.checked_here():
        found = register("best", dry_run=True, tolerance=0.5)
    assert (found.run_id, found.version, found.alias) == (run_id, None, "champion")
    assert not mlflow.MlflowClient().search_registered_models()


def test_the_best_run_becomes_champion(run_id):
    with trained.checked_here():
        found = register("best")
    assert (found.run_id, found.alias) == (run_id, "champion")
    asked = {"question": "Who?", "context": "Marie Curie shared the prize."}
    assert load(f"models:/{found.name}@champion").answer(**asked) == load(run_id).answer(**asked)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerant": 1}, "unexpected keyword argument 'tolerant'"),
        ({"confidence": 2}, "--confidence is 2"),
        ({"task": "translation"}, "--task is 'translation'"),
        ({"experiment_name": "empty"}, "holds no finished run"),
        ({"also_on": {"other": "1"}}, "also_on other: the points are '1'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, folder):
    with pytest.raises(UserError, match=message) as caught:
        register(**arguments)
    assert "\n" not in str(caught.value)
