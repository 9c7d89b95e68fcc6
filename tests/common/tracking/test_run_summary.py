"""A run in short."""

import mlflow
import pytest

from common.errors import UserError
from common.tracking.run_summary import Score, summary
from tests.support.runs import log_finished
from tests.support.stores import in_force


@pytest.fixture(autouse=True)
def store(tmp_path):
    with in_force(tmp_path):
        yield


def test_scores_come_with_intervals():
    run_id = log_finished("LoRA", [1.0, 0.0, 1.0, 1.0])
    found = summary(run_id)
    assert list(found.scores) == ["f1", "exact_match"] and found.scores["f1"].value == 75
    assert found.sentence().startswith("LoRA on ") and "(4 test questions): F1 75.0 [" in found.sentence()
    assert found.url is None
    assert str(Score(1.04, 0, 2)) == "1.0 [0.0, 2.0]" and Score(1.04, 0, 2).cells() == ("1.0", "0.0 to 2.0")


def test_the_page_of_a_server_holds_no_password(monkeypatch):
    run_id = log_finished("LoRA", [1.0, 0.0])
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "https://ann:secret@runs.example/")
    found = summary(run_id).url
    assert found.startswith("https://ann:***@runs.example/#/experiments/") and found.endswith(
        f"/runs/{run_id}"
    )


def test_a_run_that_is_missing_or_untested_is_refused():
    with pytest.raises(UserError, match="cannot be read"):
        summary("ab" * 16)
    with mlflow.start_run() as run:
        pass
    with pytest.raises(UserError, match="holds no test"):
        summary(run.info.run_id)
