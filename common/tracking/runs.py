"""MLflow runs: what a run holds, which runs are finished, what they left."""

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from .. import stopping
from ..errors import UserError, first_line
from ..tasks.interface import Task
from ..tasks.table import DEFAULT_TASK, task_of
from . import provenance, store, system_metrics
from .experiment_pages import present
from .experiments import experiment_id
from .replicates import settings_digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAGS = (
    "technique",
    "family",
    "task",
    "checkpoint",
    "data_name",
    "data_version",
    "data_fingerprint",
    "run_fingerprint",
    "base_fingerprint",
    "device",
)
"""Tags of a run that `finished_runs` gives as columns."""

PARAMETERS = ("learning_rate", "num_train_epochs", "batch_size", "max_train_samples", "seed")
"""Parameters that `finished_runs` gives as columns of numbers; a limit that was not set is NaN."""

METRICS = (
    "test_accuracy",
    "test_accuracy_low",
    "test_accuracy_high",
    "test_exact_match",
    "test_exact_match_low",
    "test_exact_match_high",
    "test_f1",
    "test_f1_low",
    "test_f1_high",
    "test_examples",
    "best_validation_accuracy",
    "best_validation_f1",
    "trainable_parameters",
    "total_parameters",
    "training_seconds",
    "train_samples_per_second",
    "peak_memory_mib",
    "adapter_mib",
)
"""Metrics that `finished_runs` always gives as columns, NaN where a run has none."""

TICKET = "ticket"
"""Tag that tells a run from every other before it has an id."""

_BY_STEP = {"train_loss", "learning_rate", "grad_norm"}
_CONTEXTS = {"training": "train", "validation": "validation", "testing": "test"}
_LONGEST_PARAMETER = 6_000
_LONGEST_TAG = 5_000


@contextmanager
def start(
    experiment_name: str, run_name: str, tags: Mapping[str, str], run_id: str | None = None
) -> Iterator["Run"]:
    """A run that ends FINISHED; FAILED with the message as tag `failure`; KILLED when interrupted or told to exit.

    run_id: go on with this run. Without it, the run that `mlflow run` made for this process is adopted, once, with
    the experiment and the name that it has; else a new one is made.
    """
    adopted = os.environ.pop("MLFLOW_RUN_ID", None)
    run_id = run_id or adopted
    with store.explained(f"run {run_id} cannot be continued" if run_id else ""):
        if run_id:
            active = mlflow.start_run(run_id=run_id)
            for left in {"failure", "non_finite_metrics"} & set(active.data.tags):
                mlflow.MlflowClient().delete_tag(run_id, left)
        else:
            active = mlflow.start_run(experiment_id=experiment_id(experiment_name), run_name=run_name)
    with stopping.farewell(lambda: end(active.info.run_id, "KILLED", int(time.time() * 1000))):
        try:
            run = Run(active.info.run_id)
            if run_id and run_id == adopted:
                _hint_at_experiment(active.info.experiment_id, experiment_name)
            run.set_tags({**provenance.tags(), **tags})
            run.log_dict(provenance.details(), provenance.FILE)
            run.log_text(provenance.environment(), "environment.txt")
            yield run
        except BaseException as error:
            _end(active.info.run_id, error)
            raise
    mlflow.end_run("FINISHED")


def create(experiment_name: str, run_name: str, ticket: str) -> str:
    """The id of the run that has this ticket, which is made if need be: a process that is killed while it makes a run finds it
    again by its ticket.

    The run that `mlflow run` made for this process is adopted instead, once, with the experiment and name that it has.
    """
    if adopted := os.environ.pop("MLFLOW_RUN_ID", None):
        with store.explained(f"run {adopted} cannot be continued"):
            _hint_at_experiment(mlflow.get_run(adopted).info.experiment_id, experiment_name)
        return adopted
    found = experiment_id(experiment_name)
    with store.explained():
        client = mlflow.MlflowClient()
        held = client.search_runs([found], f"tags.{TICKET} = '{ticket}'", max_results=1)
        if held:
            return held[0].info.run_id
        tags = resolve_tags({MLFLOW_RUN_NAME: run_name, TICKET: ticket})
        return client.create_run(found, tags=tags, run_name=run_name).info.run_id


def go_on(run_id: str) -> None:
    """Mark a run that ended badly, or was never ended, as running."""
    client = mlflow.MlflowClient()
    for left in {"failure", "non_finite_metrics"} & set(client.get_run(run_id).data.tags):
        client.delete_tag(run_id, left)
    client.update_run(run_id, status="RUNNING")


def end(run_id: str, status: str, at: int) -> None:
    """Mark how a run has ended and when, in milliseconds since 1970."""
    mlflow.MlflowClient().set_terminated(run_id, status, at)


class Run:
    """A run in progress. What is logged is written at once, so that an interrupted run keeps it."""

    def __init__(self, run_id: str):
        self.id = run_id
        self.uri = f"runs:/{run_id}"
        self._client = mlflow.MlflowClient()
        self._parameters = set(self._client.get_run(run_id).data.params)
        self._test_data: dict[str, str] = {}
        self._non_finite: dict[str, str] = {}

    def log_params(self, values: Mapping[str, object]) -> None:
        """Log parameters that the run does not have yet: `mlflow run` logs its own beforehand, as they were typed."""
        new = [name for name in values if name not in self._parameters]
        params = [Param(name, str(values[name])[:_LONGEST_PARAMETER]) for name in new]
        self._client.log_batch(self.id, params=params)
        self._parameters |= set(new)

    def log_metrics(
        self,
        values: Mapping[str, float],
        step: int | None = None,
        model_id: str | None = None,
        at: int | None = None,
    ) -> None:
        """Log finite numbers; the first other value of each name goes into the tag `non_finite_metrics`.

        model_id: the logged model that the numbers are about; those named `test_...` also point at the test data.
        at: milliseconds since 1970, default now. A point that is logged again with the same time is one point.
        """
        self.log_points([(values, step or 0, at or int(time.time() * 1000))], model_id)

    def log_points(
        self, points: Sequence[tuple[Mapping[str, float], int, int]], model_id: str | None = None
    ) -> None:
        """`log_metrics` for several (values, step, time) at once."""
        metrics = []
        for values, step, at in points:
            for name, value in values.items():
                if math.isfinite(value):
                    about = self._test_data if model_id and name.startswith("test_") else {}
                    metrics.append(Metric(name, float(value), at, step, model_id=model_id, **about))
                elif name not in self._non_finite:
                    self._non_finite[name] = f"{name}={value} at step {step}"
                    self.set_tags({"non_finite_metrics": "; ".join(self._non_finite.values())})
        self._client.log_batch(self.id, metrics=metrics)

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Store a file, or a folder with all that is in it."""
        self._client.log_artifact(self.id, str(path), folder)

    def log_dict(self, content: dict | list, file: str) -> None:
        """Store content as JSON or YAML, as the file's suffix says."""
        self._client.log_dict(self.id, content, file)

    def log_text(self, text: str, file: str) -> None:
        """Store a text."""
        self._client.log_text(self.id, text, file)

    def log_figure(self, figure: "Figure", file: str) -> None:
        """Store a matplotlib figure; the suffix of the file is its format."""
        self._client.log_figure(self.id, figure, file)

    def log_data(self, record: Mapping, context: str = "training") -> None:
        """Log the part of the data that the context names: training, validation or testing.

        The digest is the fingerprint of all parts, cut to MLflow's 36 characters: MLflow's own overlooks edits.
        """
        split = _CONTEXTS[context]
        if record["source"] == "hub":
            kind, source = "hugging_face", {"path": record["name"]}
        else:
            kind, source = "local", {"uri": record["name"], "files": record.get("files", [])}
        # One input per name and digest is kept, with the tags it came with first: each part needs its own name.
        name, digest = f"{record['name']}/{split}"[-500:], record["fingerprint"][:36]
        profile = record["counts"].get(split, {}) | {key: record[key] for key in ("version", "fingerprint")}
        dataset = Dataset(name, digest, kind, json.dumps(source), profile=json.dumps(profile))
        self._client.log_inputs(self.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])
        if context == "testing":
            self._test_data = {"dataset_name": name, "dataset_digest": digest}

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; the values are cut to 5,000 characters."""
        cut = [RunTag(name, str(value)[:_LONGEST_TAG]) for name, value in tags.items()]
        self._client.log_batch(self.id, tags=cut)


def finished_run(experiment_name: str, run_fingerprint: str) -> str | None:
    """The id of the latest finished run of this fingerprint that still has its predictions, if there is one."""
    for run in _search(experiment_name, f"and tags.run_fingerprint = '{run_fingerprint}'"):
        if mlflow.MlflowClient().list_artifacts(run.info.run_id, "predictions"):
            return run.info.run_id
    return None


def finished_runs(experiment_name: str, data_fingerprint: str | None = None) -> pd.DataFrame:
    """Finished, tested runs of an experiment, the latest to end first: `run_id`, `run_name`, `ended` (UTC),
    `settings` (`replicates.settings_digest`), TAGS, PARAMETERS, METRICS and what else was measured once for a run.

    Empty if there are none, or if the experiment does not exist. Scores in percent, times in seconds, sizes in MiB.
    """
    rows = []
    for run in _search(experiment_name):
        tags, metrics = run.data.tags, run.data.metrics
        if "technique" not in tags or "test_examples" not in metrics:
            continue
        if data_fingerprint not in (None, tags.get("data_fingerprint")):
            continue
        rows.append(
            {
                "run_id": run.info.run_id,
                "run_name": run.info.run_name,
                "ended": pd.Timestamp(run.info.end_time, unit="ms", tz="UTC"),
                "settings": settings_digest(run.data.params),
                **{name: tags.get(name, "") for name in TAGS},
                **{name: _number(run.data.params.get(name)) for name in PARAMETERS},
                **{name: metrics.get(name, math.nan) for name in METRICS},
                **{
                    name: value
                    for name, value in system_metrics.without(metrics).items()
                    if name not in _BY_STEP
                },
            }
        )
    columns = None if rows else ["run_id", "run_name", "ended", "settings", *TAGS, *PARAMETERS, *METRICS]
    return pd.DataFrame(rows, columns=columns)


def of_task(runs: pd.DataFrame, name: str | None = None) -> tuple[pd.DataFrame, Task, list[str]]:
    """The runs of one task, the task, and a line for the runs of each other one.

    runs: newest first, as `finished_runs` gives them, at least one. name: the task; default: the newest run's. UserError if
    there is no such task or no run of it.
    """
    # Runs from before there were tasks have no tag.
    tasks = runs["task"].replace("", DEFAULT_TASK) if "task" in runs else pd.Series(DEFAULT_TASK, runs.index)
    task = task_of(name or tasks.iloc[0])
    held = tasks.value_counts()
    if task.name not in held:
        raise UserError(f"--task {task.name}: the finished runs here are for {', '.join(held.index)}.")
    others = [
        f"{n} run(s) for another task (--task {other})" for other, n in held.items() if other != task.name
    ]
    return runs[tasks == task.name], task, others


def predictions(run_id: str) -> list[dict]:
    """What a run answered to each test question, with its scores from 0 to 1, in the order of the test data."""
    try:
        return mlflow.artifacts.load_dict(f"runs:/{run_id}/predictions/test.json")
    except (MlflowException, OSError) as error:
        raise UserError(
            f"Run {run_id} has no readable predictions/test.json among its artifacts ({first_line(error)}): if the "
            "project's folder was moved, move it back; else delete the run and train again."
        ) from None


def recorded(run_id: str) -> dict[str, Any] | None:
    """What the store holds of a run: its `status`, its `experiment_id`, its `tags`, its `params`, the last value of each of its
    `metrics`, and the `seconds` from its start to its end (None while it lasts). None if the store has no such run."""
    with store.explained():
        if why_missing(run_id):
            return None
        run = mlflow.get_run(run_id)
    return {
        "status": run.info.status,
        "experiment_id": run.info.experiment_id,
        "tags": dict(run.data.tags),
        "params": dict(run.data.params),
        "metrics": system_metrics.without(run.data.metrics),
        "seconds": (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else None,
    }


def why_missing(run_id: str) -> str | None:
    """Why the store has no such run, None where it has it. MlflowException where the store cannot be asked."""
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return "the run, or the whole store, was deleted"
        raise
    if run.info.lifecycle_stage == "deleted":
        return f"it was deleted (mlflow runs restore --run-id {run_id} brings it back)"
    return None


def fail(run_id: str, reason: str, status: str = "FAILED") -> None:
    """Mark a run that its process could not end; status: FAILED, or KILLED for one that was stopped."""
    client = mlflow.MlflowClient()
    client.set_tag(run_id, "failure", reason[:_LONGEST_TAG])
    client.set_terminated(run_id, status)


def download(run_id: str, artifacts: Sequence[str], folder: Path) -> None:
    """Copy those of these files and folders that a run has into a folder; UserError where one cannot be read."""
    try:
        present = {file.path for file in mlflow.MlflowClient().list_artifacts(run_id)}
        for name in present & set(artifacts):
            mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{name}", dst_path=str(folder))
    except (MlflowException, OSError) as error:
        raise UserError(f"The artifacts of run {run_id} cannot be read: {first_line(error)}.") from None


def experiments_with_runs() -> list[str]:
    """Names of the experiments that hold finished, tested runs."""
    with store.explained():
        return [e.name for e in mlflow.search_experiments() if len(finished_runs(e.name))]


def _search(experiment_name: str, condition: str = "") -> list[mlflow.entities.Run]:
    """The finished runs of an experiment as MLflow has them, the latest to end first; condition: a further one, `and ...`."""
    with store.explained():
        found = mlflow.get_experiment_by_name(experiment_name)
        if found is None:
            return []
        return mlflow.search_runs(
            [found.experiment_id],
            f"attributes.status = 'FINISHED' {condition}",
            order_by=["attributes.end_time DESC"],
            output_format="list",
        )


def _number(text: str | None) -> float:
    """A logged parameter as a number; NaN where it is none or was not logged."""
    try:
        return math.nan if text is None else float(text)
    except ValueError:
        return math.nan


def _hint_at_experiment(id_: str, wanted: str) -> None:
    """Say how to have a run in the wanted experiment where `mlflow run` put it into another one."""
    found = mlflow.get_experiment(id_)
    present(found)
    name = found.name
    if name != wanted:
        print(
            f"mlflow run put this run into the experiment {name!r}; to have it in {wanted!r}: "
            f"mlflow run --experiment-name {wanted} ...",
            file=sys.stderr,
        )


def _end(run_id: str, error: BaseException) -> None:
    """End the active run as the error has it; a store that fails too must not hide the error."""
    killed = isinstance(error, (KeyboardInterrupt, SystemExit))
    try:
        mlflow.end_run("KILLED" if killed else "FAILED")
        if not killed:
            message = f"{type(error).__name__}: {error}"
            mlflow.MlflowClient().set_tag(run_id, "failure", message[:_LONGEST_TAG])
    except MlflowException as second:
        print(f"MLflow could not record how run {run_id} ended: {first_line(second)}", file=sys.stderr)
