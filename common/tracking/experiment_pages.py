"""How MLflow's pages show an experiment: as one that trains models, with a saved view of its scores and costs."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from ..data_name import is_name
from ..scoring.names import LABELS
from ..tasks import naming
from ..tasks.interface import Task
from ..tasks.table import TASKS

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it the pages take an experiment for one of generative AI, or guess."""

VIEW = "scores-and-costs"
"""What a link calls the saved view; the pages keep views as tags of the experiment."""

_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
_COSTS = ("trainable_parameters", "training_seconds")


def present(experiment: Experiment, task: Task | None = None) -> None:
    """Give an experiment (MLflow's entity) the kind and, where it is a task's, the view; what somebody has set stays.

    task: whose runs it gets; None: the task whose experiment it is by its name, if it is one.

    Nothing is changed where the store lets people write runs alone, or nothing.
    """
    with contextlib.suppress(MlflowException):
        _present(experiment, task)


def _present(experiment: Experiment, task: Task | None) -> None:
    client, has = mlflow.MlflowClient(), experiment.tags
    kind = has.get("mlflow.experimentKind", "")
    # What the pages have guessed ends so.
    if not kind or kind == "no_inferred_type" or kind.endswith("_inferred"):
        client.set_experiment_tag(experiment.experiment_id, *next(iter(KIND.items())))
    task = task or next((each for each in TASKS.values() if each.experiment == experiment.name), None)
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
    """A line for the view of each experiment of a task, or of data with a name, that the store in force has, on the pages at
    this address."""
    lines = []
    for experiment, task in _with_tasks():
        present(experiment, task)
        shown = ", ".join(LABELS[metric] for metric in task.metrics)
        # The pages of MLflow 3.17 take the workflow from the link, or from what was last chosen in the browser.
        query = urlencode({"workflowType": "machine_learning", "viewStateShareKey": VIEW})
        place = f"{address}/#/experiments/{experiment.experiment_id}/runs?{query}"
        lines.append(f"{experiment.name} ({shown}, trainable parameters, training time): {place}")
    return lines


def _with_tasks() -> list[tuple[Experiment, Task]]:
    """The active experiments that are called after a task, then those called after the data of their newest run."""
    active = {experiment.name: experiment for experiment in mlflow.search_experiments()}
    found = [(active.pop(task.experiment), task) for task in TASKS.values() if task.experiment in active]
    for experiment in active.values():
        called = f"tags.{naming.TAG} = '{experiment.name}'" if is_name(experiment.name) else None
        runs = called and mlflow.search_runs(
            [experiment.experiment_id], called, max_results=1, output_format="list"
        )
        task = TASKS.get(runs[0].data.tags.get("task", "")) if runs else None
        if task is not None:
            found.append((experiment, task))
    return found
