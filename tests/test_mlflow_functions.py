"""MLflow's own functions for evaluation and search, on what the suite logs and registers; docs/PROMOTION.md shows them."""

import mlflow
import pandas as pd
import pytest
from mlflow.models import MetricThreshold, make_metric
from mlflow.models.evaluation.validation import ModelValidationFailedException

from common.data import prepared
from common.registry import register
from common.scoring import squad
from common.tasks.table import TASKS
from tests.support import stores, trained

NAME = TASKS["extractive-qa"].registered


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(ids of two runs, the second with the better scores; the test questions): a version of each."""
    folder = tmp_path_factory.mktemp("functions")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        found = []
        for i, (technique, f1) in enumerate((("ia3", 40.0), ("lora", 50.0))):
            made = {"technique": technique, "validation_f1": f1, "seed": i}
            found.append(trained.log_run(folder, tiny, record, examples, experiment=f"functions-{i}", **made))
            with trained.checked_here():
                register.register_best(f"functions-{i}")
        yield found, examples


def f1(predictions, targets, metrics=None):
    """SQuAD's F1 in percent."""
    scores = [squad.f1(answer, list(golds)) for answer, golds in zip(predictions, targets, strict=True)]
    return 100 * sum(scores) / len(scores)


def evaluated(uri, asked, golds):
    """MLflow's result for a model, with F1 as docs/PROMOTION.md has it."""
    metric = make_metric(eval_fn=f1, greater_is_better=True, name="f1")
    data = asked.assign(golds=golds)
    return mlflow.models.evaluate(
        uri, data, targets="golds", predictions="answer", extra_metrics=[metric], evaluators="default"
    )


def test_any_version_is_evaluated_and_validated_by_mlflow(world):
    _, examples = world
    asked = pd.DataFrame([{n: e[n] for n in ("question", "context")} for e in examples])
    answers = {
        number: mlflow.pyfunc.load_model(f"models:/{NAME}/{number}").predict(asked)["answer"]
        for number in (1, 2)
    }
    # The second one is right by definition.
    golds = [[answer] if answer else [] for answer in answers[2]]
    results = {number: evaluated(f"models:/{NAME}/{number}", asked, golds) for number in (1, 2)}
    assert results[2].metrics["f1"] == 100
    assert results[1].metrics["f1"] == pytest.approx(f1(answers[1], golds))
    reached = results[2].metrics["f1"]
    passing = {"f1": MetricThreshold(threshold=reached - 1, greater_is_better=True)}
    mlflow.validate_evaluation_results(passing, results[2])
    failing = {"f1": MetricThreshold(threshold=reached + 1, greater_is_better=True)}
    with pytest.raises(ModelValidationFailedException, match="f1"):
        mlflow.validate_evaluation_results(failing, results[2])


def test_models_are_found_by_their_scores(world):
    found, _ = world
    models = mlflow.search_logged_models(
        [mlflow.get_run(run_id).info.experiment_id for run_id in found],
        filter_string="name = 'model' AND metrics.best_validation_f1 > 45",
        order_by=[{"field_name": "metrics.best_validation_f1", "ascending": False}],
        output_format="list",
    )
    assert [model.source_run_id for model in models] == [found[1]]
    every = mlflow.search_logged_models(
        [mlflow.get_run(run_id).info.experiment_id for run_id in found],
        filter_string="name = 'model'",
        order_by=[{"field_name": "metrics.best_validation_f1", "ascending": False}],
        output_format="list",
    )
    assert [model.source_run_id for model in every] == found[::-1]
    assert all(model.tags["base_fingerprint"] for model in every)
