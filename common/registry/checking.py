"""What a candidate must pass by itself: it loads in a fresh process without the hub, and answers there as in training."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from .. import isolated
from ..counts import count_of
from ..data import prepared
from ..data.prepared import Splits
from ..data.record import DataRecord
from ..errors import UserError
from ..models.bundles import BundleInfo
from ..scratch import scratch
from ..serving import model_logging, stored_code
from ..tasks.interface import Task
from ..tracking import runs
from . import fresh_process

SAMPLE = 50
"""Number of test questions (or texts) that a model must answer again before it is registered."""

TIMEOUT = 1800
"""Seconds within which a model must load and answer them."""


@dataclass(frozen=True)
class Questions:
    """The questions (or texts) for a candidate, and its run's answers."""

    rows: list[dict]
    """Rows of predictions/test.json, one for each request."""
    asked: list[Mapping[str, str]]
    every: list[dict]
    """All rows of predictions/test.json."""
    examples: dict[str, dict]
    """Id → test example of the prepared data; empty if the data is not available."""
    note: str = ""
    """A sentence for the reader if less was checked than usual."""


@dataclass(frozen=True)
class Checked:
    """The results of a candidate's checks. Latencies of single requests in ms, NaN if it does not load."""

    failed: tuple[str, ...]
    """A sentence for each check that failed."""
    summary: str
    """What was checked, in a sentence for the reader."""
    latency_ms: float = math.nan
    latency_p95_ms: float = math.nan
    requests: int = 0
    loading_seconds: float = math.nan


class Unloadable(Exception):
    """A model did not load or answer in a fresh process; the message is the last line of its output."""


def data_of(run: Run, task: Task, data_dir: str | Path | None) -> tuple[Splits, DataRecord]:
    """(the splits that a run was trained on, their record). data_dir: their folder; default: the one that they were in then.

    UserError if the folder does not hold them, or the run does not say what they were.
    """
    folder = data_dir or run.data.params.get("data_dir", task.data_dir)
    splits, record = prepared.load(folder)
    wanted = run.data.tags.get("data_fingerprint")
    if wanted is None:
        raise UserError(
            f"Run {run.info.run_id} does not say what data it was trained on, so nothing can be compared with it: train again."
        )
    if record.fingerprint != wanted:
        raise UserError(
            f"{folder} holds other data ({record.fingerprint[:12]}) than run {run.info.run_id} was trained on "
            f"({wanted[:12]}): name the folder that holds it with --data_dir."
        )
    return splits, record


def questions(run: Run, example: Mapping, data_dir: str | Path | None, task: Task) -> Questions:
    """A sample of a run's test questions (or texts) as requests to a served model.

    example: the input that training logged with the model; it is asked if the run's data is not in its folder any more.
    data_dir: the folder of the data; UserError if that folder does not hold it.
    """
    served = model_logging.module_of(task)
    rows = runs.predictions(run.info.run_id)
    try:
        splits, record = data_of(run, task, data_dir)
    except UserError:
        if data_dir is not None:
            raise
        # The run's predictions hold no texts, but training logs the first one with the model.
        row = next((row for row in rows if row.get("question") == example.get("question")), None)
        if row is None:
            raise UserError(
                f"There is no data to check the model of run {run.info.run_id} with: name the folder of the data "
                "that it was trained on with --data_dir."
            ) from None
        folder = run.data.params.get("data_dir", task.data_dir)
        note = (
            f"Checked on one {task.unit.removesuffix('s')} only and without slices, because {folder} does not hold the "
            "run's data (name another folder with --data_dir)."
        )
        return Questions([row], [example], rows, {}, note)
    examples = {e["id"]: task.described(e, record) for e in splits["test"]}
    asked = {id_: task.request(e) for id_, e in examples.items()}
    taken = [row for row in rows if served.is_taken(asked[row["id"]])]
    taken = taken[:: max(1, math.ceil(len(taken) / SAMPLE))]
    return Questions(taken, [asked[row["id"]] for row in taken], rows, examples)


def check(uri: str, asked: Questions, about: BundleInfo, task: Task, precision: str) -> Checked:
    """Load a stored model in a fresh process without the hub and compare its answers with the run's.

    about: describes the saved model. precision: the run's.
    """
    try:
        found = ask(uri, asked.asked)
    except Unloadable as error:
        reason = f"it does not load and answer in a fresh process without the hub ({error})"
        return Checked((reason,), f"It fails its check: {reason}.")
    rows, failed = asked.rows, []
    wrong = task.disagreements(rows, found["answers"], about, precision)
    if wrong:
        failed.append(
            f"it does not answer as it did when it was trained: {len(wrong)} of {len(rows)} {task.unit} differ, first "
            f"{wrong[0]}. If the code or the libraries have changed since, train again"
        )
    one = f"test {task.unit.removesuffix('s')} is"
    summary = (
        f"{len(rows) - len(wrong)} of {len(rows)} test {task.unit} are answered as in training."
        if wrong
        else f"{count_of(len(rows), f'test {task.unit} are', one)} answered as in training."
    )
    latencies = found["latencies"]
    return Checked(
        tuple(failed),
        " ".join(filter(None, (asked.note, summary))),
        float(np.median(latencies)),
        float(np.quantile(latencies, 0.95)),
        len(latencies),
        found["loading"],
    )


def latency(uri: str, asked: Questions) -> float:
    """Median latency of a stored model's single requests in ms, measured by this call; NaN if it does not load."""
    try:
        return float(np.median(ask(uri, asked.asked)["latencies"]))
    except Unloadable:
        return math.nan


def ask(uri: str, asked: Sequence[Mapping[str, str]]) -> dict:
    """The result of `fresh_process.ask` for a stored model whose files are those that were recorded. Raises Unloadable."""
    with scratch() as folder:
        try:
            stored = stored_code.verified(uri, folder)
        except (UserError, MlflowException, OSError) as error:
            raise Unloadable(str(error)) from None
        return in_fresh_process(stored, asked)


def in_fresh_process(stored: Path, asked: Sequence[Mapping[str, str]]) -> dict:
    """The result of `fresh_process.ask` for a model's folder, in a process that has neither this package nor the hub or its
    cache. Raises Unloadable."""
    store = {
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri(),
    }
    try:
        given = isolated.answer(
            fresh_process.__file__, list(asked), str(stored), timeout=TIMEOUT, environment=store
        )
    except isolated.NoAnswer as error:
        raise Unloadable(str(error)) from None
    found: dict = json.loads(given)
    return found
