"""Evaluations of finished models in MLflow: a run of their own, below the run that trained the model and linked with the model."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric

from . import provenance, store
from .experiments import experiment_id

EXPERIMENT = "evaluations"
"""The experiment of models that the store does not hold."""

TAG = "evaluation"
"""Tag of an evaluation's run: its data sets' names."""


@dataclass(frozen=True)
class Evaluated:
    """A model's figures on one data set."""

    name: str
    fingerprint: str
    """sha256 of the examples."""
    profile: Mapping[str, Any]
    """What is to be known of the data, such as how many examples it has."""
    metrics: Mapping[str, float]


def log(
    model: str,
    sets: Sequence[Evaluated],
    folder: Path,
    *,
    model_id: str | None,
    run_id: str | None,
    params: Mapping[str, Any],
    experiment_name: str | None = None,
) -> str:
    """Log what one model did on data sets; the new run's id.

    model: what it was loaded by. folder: files that are logged with it. model_id, run_id: of the logged model and the run
    that trained it, which the new run lies below; each metric is also the model's own, on its data set. experiment_name: for
    a model that is not in the store.
    """
    store.configure()
    with store.explained():
        client = mlflow.MlflowClient()
        if run_id:
            experiment = client.get_run(run_id).info.experiment_id
        else:
            experiment = experiment_id(experiment_name or EXPERIMENT)
        names = ", ".join(each.name for each in sets)
        tags = {TAG: names[:5000], "evaluated_model": model, **provenance.tags()}
        if run_id:
            tags["mlflow.parentRunId"] = run_id
        run = client.create_run(experiment, run_name=f"evaluation on {names}"[:250], tags=tags)
        new = run.info.run_id
        try:
            for name, value in params.items():
                client.log_param(new, name, value)
            client.log_inputs(
                new,
                datasets=[_input(each) for each in sets],
                models=[LoggedModelInput(model_id)] if model_id else None,
            )
            at = int(time.time() * 1000)
            client.log_batch(new, metrics=[m for each in sets for m in _metrics(each, at, model_id)])
            client.log_artifacts(new, str(folder))
        except BaseException:
            client.set_terminated(new, "FAILED")
            raise
        client.set_terminated(new)
    return new


def _input(each: Evaluated) -> DatasetInput:
    # Of the fingerprint MLflow's digest holds 36 characters; its own overlooks edits.
    source = json.dumps({"fingerprint": each.fingerprint})
    dataset = Dataset(
        each.name[-500:], each.fingerprint[:36], "local", source, profile=json.dumps(dict(each.profile))
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])


def _metrics(each: Evaluated, at: int, model_id: str | None) -> list[Metric]:
    about = {"dataset_name": each.name[-500:], "dataset_digest": each.fingerprint[:36]} if model_id else {}
    return [
        Metric(name, float(value), at, 0, model_id=model_id, **about)
        for name, value in each.metrics.items()
        if math.isfinite(value)
    ]
