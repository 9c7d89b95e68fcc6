"""What MLflow's pages are told of an experiment."""

import json

import mlflow
import pytest

from common.tracking import experiment_pages, experiments, store
from common.tracking.experiment_pages import VIEW
from tests.support.stores import in_force

KIND, TAG = "mlflow.experimentKind", f"mlflow.sharedViewState.{VIEW}"


@pytest.fixture
def own_store(tmp_path):
    with in_force(tmp_path):
        yield mlflow.MlflowClient()


def test_experiments_open_as_model_training_with_a_view_and_what_users_set_stays(own_store):
    made = mlflow.get_experiment(experiments.experiment_id("squad-qa")).tags
    assert made[KIND] == "custom_model_development"
    shown = json.loads(made[TAG])
    for column in ("test_f1", "test_exact_match", "trainable_parameters", "training_seconds"):
        assert f"metrics.`{column}`" in shown["selectedColumns"]

    # One that MLflow made, and has guessed about.
    found = own_store.create_experiment(
        "imdb-sentiment", store.artifact_location("x"), tags={KIND: "genai_development_inferred"}
    )
    assert experiments.experiment_id("imdb-sentiment") == found
    assert mlflow.get_experiment(found).tags[KIND] == "custom_model_development"
    assert "test_accuracy" in mlflow.get_experiment(found).tags[TAG]

    mine = own_store.create_experiment(
        "generative-qa", store.artifact_location("x"), tags={KIND: "genai_development", TAG: "mine"}
    )
    experiments.experiment_id("generative-qa")
    assert (mlflow.get_experiment(mine).tags[KIND], mlflow.get_experiment(mine).tags[TAG]) == (
        "genai_development",
        "mine",
    )

    lines = experiment_pages.links("http://here")
    assert len(lines) == 3 and f"/#/experiments/{found}/runs?workflowType=machine_learning" in lines[1]
    assert TAG not in mlflow.get_experiment(experiments.experiment_id("another")).tags
