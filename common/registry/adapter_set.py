"""The best run of each technique on one base and one data set → one registered model that holds the base once.

A model with all weights trained ("Standard") is not an adapter: it has a base of its own and is registered by itself.
"""

import contextlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ..data import prepared
from ..errors import UserError
from ..models.bundles import read_bundle
from ..reports.text_tables import to_markdown
from ..scratch import scratch
from ..serving import model_logging, side_by_side, stored_code
from ..tasks import naming
from ..tasks.table import DEFAULT_TASK, TASKS
from ..tracking import experiments, store
from ..tracking import runs as tracking
from . import versions
from .choosing import choose
from .gate import CHAMPION

TASK = TASKS[DEFAULT_TASK]
NAME = f"{TASK.registered}-all"
"""Of the registered model, unless its runs' data was given a name."""

SAMPLE = 50
"""Number of test questions that each adapter must answer as its run did."""


@dataclass(frozen=True)
class Registered:
    """What `register_adapters` did."""

    name: str
    """Of the registered model."""
    version: str
    runs: dict[str, str]
    """Technique → its run, best by validation first."""
    is_new: bool
    notes: tuple[str, ...]


@store.explained()
def register_adapters(
    experiment_name: str, data_fingerprint: str | None = None, data_dir: str | Path | None = None
) -> Registered:
    """Register the best finished run of each technique as one model, each checked against its run's own answers.

    The best run of all (by validation F1) decides the base and the data. data_fingerprint: first characters of the
    fingerprint of the data to choose from; default: the newest run's. data_dir: the folder of that data; default: the one
    that the best run was trained from. The same runs are not registered twice. UserError if there is no adapter, or if
    one does not answer as its run did.
    """
    store.configure()
    finished = tracking.finished_runs(experiment_name)
    if finished.empty:
        raise UserError(
            f"The experiment {experiment_name!r} holds no finished run: train first, or name another."
        )
    finished, *_ = tracking.of_task(finished, TASK.name)
    best, notes = best_of_each(finished, data_fingerprint)
    runs = {technique: mlflow.get_run(id_) for technique, id_ in best.items()}
    client = MlflowClient()
    name = f"{naming.registered(TASK, next(iter(runs.values())).data.tags)}-all"
    with store.lock("register"):
        ids = ",".join(best.values())
        # A tag holds 8,000 characters: 240 runs.
        found = versions.first_with(client, name, {"run_ids": ids})
        version = found or _register(client, name, runs, data_dir, {"run_ids": ids} | _in_common(runs))
    return Registered(name, str(version.version), best, found is None, tuple(notes))


def _in_common(runs: Mapping[str, Run]) -> dict[str, str]:
    """The tags that hold for all of these runs: they have their task, their base and their data in common."""
    tags = next(iter(runs.values())).data.tags
    names = ("family", "task", "checkpoint", "base_fingerprint", *versions.OF_DATA)
    return {name: tags[name] for name in names if tags.get(name)}


def best_of_each(runs: pd.DataFrame, data_fingerprint: str | None) -> tuple[dict[str, str], list[str]]:
    """(technique → run id, best first; a line for each part that was left out): adapters on the base of the best one."""
    logged = {id_: mlflow.get_run(id_).data for id_ in runs["run_id"]}
    runs = runs.assign(
        max_validation_samples=[
            logged[id_].params.get("max_validation_samples", "None") for id_ in runs["run_id"]
        ],
        base=[logged[id_].tags.get("base_fingerprint", "") for id_ in runs["run_id"]],
    )
    adapters = runs[runs["base"] != ""]
    if adapters.empty:
        raise UserError(
            "None of the finished runs trained an adapter; runs that train all weights share no base."
        )
    best, notes = choose(adapters, data_fingerprint, TASK)
    alike = adapters[
        (adapters["base"] == best["base"])
        & (adapters["data_fingerprint"] == best["data_fingerprint"])
        & (adapters["max_validation_samples"] == best["max_validation_samples"])
    ]
    chosen = [choose(group, None, TASK)[0] for _, group in alike.groupby("technique", sort=False)]
    chosen.sort(key=lambda run: -run[f"best_validation_{TASK.metric}"])
    others = len(adapters[adapters["data_fingerprint"] == best["data_fingerprint"]]) - len(alike)
    if others:
        notes.append(f"Left out: {others} run(s) on another base.")
    return {run["technique"]: run["run_id"] for run in chosen}, notes


def _register(
    client: MlflowClient,
    name: str,
    runs: Mapping[str, Run],
    data_dir: str | Path | None,
    tags: dict[str, str],
) -> ModelVersion:
    first = next(iter(runs.values()))
    rows, asked = _questions(runs, data_dir)
    experiment = experiments.experiment_id(name)
    run = client.create_run(
        experiment, run_name=", ".join(runs), tags={"base_fingerprint": first.data.tags["base_fingerprint"]}
    )
    info = None
    try:
        with scratch() as place:
            bundle = place / "bundle"
            assemble(runs, bundle)
            infos = [read_bundle(folder) for folder in sorted((bundle / "adapters").iterdir())]
            info = model_logging.log_bundle(
                bundle, asked[0], run_id=run.info.run_id, name="model", served="serving.side_by_side"
            )
        # Loaded from the store, as a server would.
        model = stored_code.load(info.model_uri)
        answered = model.predict(pd.DataFrame(asked), params={"technique": side_by_side.ALL})["answers"]
        for i, ((technique, source), about) in enumerate(zip(runs.items(), infos, strict=True)):
            own = [answers[i] for answers in answered]
            precision = source.data.params.get("precision", "fp32")
            wrong = TASK.disagreements(rows[technique], own, about, precision)
            if wrong:
                raise UserError(
                    f"{technique} (run {source.info.run_id}) does not answer as it did when it was trained, so nothing "
                    f"is registered ({len(wrong)} of {len(asked)} questions differ). First: {wrong[0]}. If the code or "
                    "the libraries have changed since, train again."
                )
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        if info is not None:
            with contextlib.suppress(MlflowException):
                client.delete_logged_model(info.model_id)
        raise
    client.set_terminated(run.info.run_id)
    version = versions.create(
        client,
        name,
        "Extractive question answering: one base, many adapters; `technique` chooses.",
        info.model_uri,
        tags,
        _page(runs, len(asked)),
        same=["run_ids"],
    )
    client.set_registered_model_alias(name, CHAMPION, version.version)
    return version


def assemble(runs: Mapping[str, Run], folder: Path) -> None:
    """Write the saved models of runs (technique → run) and their shared base into a folder, as side_by_side.py reads it."""
    for i, run in enumerate(runs.values()):
        model = versions.logged_model(run)
        with scratch() as place:
            bundle = stored_code.verified(f"models:/{model.model_id}", place) / "artifacts" / "bundle"
            if not (folder / "base").is_dir():
                shutil.copytree(bundle / "base", folder / "base")
            target = folder / "adapters" / f"{i:02d}"
            shutil.copytree(bundle / "adapter", target / "adapter")
            shutil.copy(bundle / "bundle.json", target / "bundle.json")


def _questions(
    runs: Mapping[str, Run], data_dir: str | Path | None
) -> tuple[dict[str, list[dict]], list[dict]]:
    """(technique → the rows of its run's predictions, the requests): the same test questions for all."""
    first = next(iter(runs.values()))
    folder = data_dir or first.data.params.get("data_dir", TASK.data_dir)
    splits, record = prepared.load(folder)
    wanted = first.data.tags["data_fingerprint"]
    if record.fingerprint != wanted:
        raise UserError(
            f"{folder} holds other data ({record.fingerprint[:12]}) than the runs were trained on ({wanted[:12]}): name the "
            "folder that holds it with --data_dir."
        )
    texts = {
        e["id"]: {name: e[name] for name in side_by_side.ASKED}
        for e in splits["test"]
        if side_by_side.is_taken(e)
    }
    rows = {t: {row["id"]: row for row in tracking.predictions(run.info.run_id)} for t, run in runs.items()}
    ids = [id_ for id_ in texts if all(id_ in held for held in rows.values())]
    if not ids:
        raise UserError("The runs were tested on no question in common: train again with the same limits.")
    ids = ids[:: max(1, math.ceil(len(ids) / SAMPLE))]
    return {t: [held[id_] for id_ in ids] for t, held in rows.items()}, [texts[id_] for id_ in ids]


def _page(runs: Mapping[str, Run], questions: int) -> str:
    rows = []
    for technique, run in runs.items():
        f1 = [run.data.metrics.get(name, math.nan) for name in ("best_validation_f1", "test_f1")]
        rows.append([technique, *(f"{value:.1f}" for value in f1), f"`{run.info.run_id}`"])
    table = to_markdown(pd.DataFrame(rows, columns=["technique", "validation F1", "test F1", "run"]))
    return (
        f"{table}\nEach answers {questions} test questions as in training. By default the first one answers."
    )
