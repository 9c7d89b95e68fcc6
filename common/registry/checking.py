"""What a candidate must pass by itself: it loads in a fresh process without the hub, and answers there as in training."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from ..data import prepared
from ..errors import UserError, last_line
from ..models.bundles import BundleInfo
from ..scratch import scratch
from ..serving import model_logging, stored_code
from ..tasks.interface import Task
from ..tracking import runs
from . import fresh_process

SAMPLE = 50
"""Test questions (or texts) that a model is asked again before it is registered."""

TIMEOUT = 1800
"""Seconds that a model may take to load and to answer them."""


@dataclass(frozen=True)
class Questions:
    """What a candidate is asked, and what its run answered."""

    rows: list[dict]
    """Of predictions/test.json, one for each request."""
    asked: list[Mapping[str, str]]
    every: list[dict]
    """All rows of predictions/test.json."""
    examples: dict[str, dict]
    """Test example of the prepared data by id; empty where the data is not at hand."""
    note: str = ""
    """What the reader should know of the check, where it is less than it should be."""


@dataclass(frozen=True)
class Checked:
    """What became of a candidate's checks. Latencies in ms, of single requests, NaN where it does not load."""

    failed: tuple[str, ...]
    """A sentence for each check that failed."""
    summary: str
    """What was checked, in a sentence for the reader."""
    latency_ms: float = math.nan
    latency_p95_ms: float = math.nan
    requests: int = 0
    loading_seconds: float = math.nan


class Unloadable(Exception):
    """A model did not load or answer in a fresh process; the message is the last thing that it said."""


def questions(run, example: Mapping, data_dir: str | Path | None, task: Task) -> Questions:
    """A sample of a run's test questions (or texts) as they are asked of a served model.

    example: the input that training logged with the model, which is asked where the run's data is gone from where it
    lay. data_dir: where the data lies now; UserError if it does not lie there.
    """
    served = model_logging.module_of(task)
    rows = runs.predictions(run.info.run_id)
    wanted = run.data.tags["data_fingerprint"]
    folder = data_dir or run.data.params.get("data_dir", task.data_dir)
    try:
        splits, record = prepared.load(folder)
        if record.fingerprint != wanted:
            raise UserError(
                f"--data_dir {folder} holds other data ({record.fingerprint[:12]}) than run {run.info.run_id} was "
                f"trained on ({wanted[:12]})."
            )
    except UserError:
        if data_dir is not None:
            raise
        # A text is not among what is kept of it, but training logs the first one with the model.
        row = next((row for row in rows if row.get("question") == example.get("question")), None)
        if row is None:
            raise UserError(
                f"Nothing is at hand to check the model of run {run.info.run_id} with: name the data that it was "
                "trained on with --data_dir."
            ) from None
        note = (
            f"Checked on one {task.unit.removesuffix('s')} only and without slices, for {folder} no longer holds the "
            "run's data (--data_dir names another folder)."
        )
        return Questions([row], [example], rows, {}, note)
    examples = {e["id"]: task.described(e, record) for e in splits["test"]}
    asked = {id_: task.request(e) for id_, e in examples.items()}
    taken = [row for row in rows if served.is_taken(asked[row["id"]])]
    taken = taken[:: max(1, math.ceil(len(taken) / SAMPLE))]
    return Questions(taken, [asked[row["id"]] for row in taken], rows, examples)


def check(uri: str, asked: Questions, about: BundleInfo, task: Task, precision: str) -> Checked:
    """Load a stored model in a fresh process without the hub and hold its answers against the run's.

    about: of the saved model; precision: the run's.
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
            f"{wrong[0]}. Were the code or the libraries changed since? Then train again"
        )
    summary = (
        f"{len(rows) - len(wrong)} of {len(rows)} test {task.unit} are answered as in training."
        if wrong
        else f"{len(rows)} test {task.unit} are answered as in training."
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
    """Median ms of a stored model's single requests, measured now; NaN if it does not load."""
    try:
        return float(np.median(ask(uri, asked.asked)["latencies"]))
    except Unloadable:
        return math.nan


def ask(uri: str, asked: Sequence[Mapping[str, str]]) -> dict:
    """What `fresh_process.ask` gives of a stored model whose code is what was recorded. Raises Unloadable."""
    with scratch() as folder:
        try:
            stored = stored_code.verified(uri, folder)
        except (UserError, MlflowException, OSError) as error:
            raise Unloadable(str(error)) from None
        return in_fresh_process(stored, asked)


def in_fresh_process(stored: Path, asked: Sequence[Mapping[str, str]]) -> dict:
    """What `fresh_process.ask` gives of a model's folder.

    The process has neither this package, nor the hub, nor anything cached of it, and one thread unless OMP_NUM_THREADS
    says otherwise. Raises Unloadable.
    """
    with scratch() as folder:
        sent, answered = folder / "asked.json", folder / "answered.json"
        sent.write_text(json.dumps(list(asked)), encoding="utf-8")
        nothing = str(folder / "hub")
        environment = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | os.environ
        environment |= {
            "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
            "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri(),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_HOME": nothing,
            "HF_HUB_CACHE": nothing,
            "HUGGINGFACE_HUB_CACHE": nothing,
            # What is downloaded from a server goes with the folder.
            "TMPDIR": str(folder),
        }
        # Without -P the file's folder, which is this package's, would be looked through for imports.
        command = [sys.executable, "-P", fresh_process.__file__, str(stored), str(sent), str(answered)]
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT
            )
        except subprocess.TimeoutExpired:
            raise Unloadable(f"nothing came back for {TIMEOUT} s") from None
        if done.returncode != 0 or not answered.is_file():
            raise Unloadable(last_line(done.stderr, f"exit status {done.returncode}")[:300])
        return json.loads(answered.read_text(encoding="utf-8"))
