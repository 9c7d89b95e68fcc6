"""How MLflow's pages show an experiment: as one that trains models, with a saved view of its scores and costs."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from ..scoring.names import LABELS
from ..tasks.table import TASKS

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it the pages take an experiment for one of generative AI, or guess."""

VIEW = "scores-and-costs"
"""What a link calls the saved view; the pages keep views as tags of the experiment."""

_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
_COSTS = ("trainable_parameters", "training_seconds")


def present(experiment: Experiment) -> None:
    """Give an experiment (MLflow's entity) the kind and, where it is a task's, the view; what somebody has set stays.

    Nothing is changed where the store lets people write runs alone, or nothing.
    """
    with contextlib.suppress(MlflowException):
        _present(experiment)


def _present(experiment: Experiment) -> None:
    client, has = mlflow.MlflowClient(), experiment.tags
    kind = has.get("mlflow.experimentKind", "")
    # What the pages have guessed ends so.
    if not kind or kind == "no_inferred_type" or kind.endswith("_inferred"):
        client.set_experiment_tag(experiment.experiment_id, *next(iter(KIND.items())))
    task = next((task for task in TASKS.values() if task.experiment == experiment.name), None)
    if task and _VIEW_TAG not in has:
        client.set_experiment_tag(experiment.experiment_id, _VIEW_TAG, json.dumps(view(task.metrics)))


def view(metrics: Sequence[str]) -> dict[str, Any]:
    """The state of the runs' table as MLflow 3.17's pages save it; metrics: a task's, that to sort by first."""
    columns = [f"metrics.`test_{metric}`" for metric in metrics] + [f"metrics.`{cost}`" for cost in _COSTS]
    return {
        "orderByKey": columns[0],
        "orderByAsc": False,
        "selectedColumns": [*columns, "tags.`technique`", "tags.`checkpoint`"],
    }


def links(address: str) -> list[str]:
    """A line for the view of each task's experiment that the store in force has, on the pages at this address."""
    lines = []
    for task in TASKS.values():
        experiment = mlflow.get_experiment_by_name(task.experiment)
        if experiment is not None and experiment.lifecycle_stage == "active":
            present(experiment)
            shown = ", ".join(LABELS[metric] for metric in task.metrics)
            # The pages of MLflow 3.17 take the workflow from the link, or from what was last chosen in the browser.
            query = urlencode({"workflowType": "machine_learning", "viewStateShareKey": VIEW})
            place = f"{address}/#/experiments/{experiment.experiment_id}/runs?{query}"
            lines.append(f"{task.experiment} ({shown}, trainable parameters, training time): {place}")
    return lines
