"""A registered version → ONNX Runtime versions of it, fp32 and int8, that give the same answers; for serving on a CPU.

They belong to a registered model of their own, `<name>-onnx`, with the aliases fp32 and int8. The same code serves them; only
the network itself runs in ONNX Runtime.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from ..counts import count_of
from ..data import prepared
from ..data.record import DataRecord
from ..errors import UserError
from ..models.bundles import BundleInfo, load_bundle, read_bundle, write_info
from ..models.onnx import ONNX, export, needed, refusal
from ..scoring.names import LABELS
from ..scratch import scratch
from ..serving import model_logging
from ..tasks.interface import Example, Task
from ..tracking import store
from . import champion, checking, recertifying, versions

PRECISIONS = ("fp32", "int8")

TOLERANCE = 5e-3
"""Difference in probability within which an fp32 version may give another answer, because two are equally good."""

MOST_LOST = 1.0
"""Most points that int8 may lose on the test examples."""


@store.explained()
def export_version(
    task: Task, version: str, data_dir: str | Path | None = None, registered: str | None = None
) -> list[str]:
    """Export a version of a registered model, by default of the task's own; a line for each precision says what was
    registered and how it compares.

    The version and both exports answer every test example that a served model accepts. data_dir: the prepared data;
    default: the folder that the version's run was trained from. UserError if fp32 answers differently, if ONNX is not
    installed, or if the task or the model's family has no export. int8 is not registered if it loses more than MOST_LOST points.
    """
    if not task.onnx_outputs:
        raise UserError(
            f"--export onnx: {task.name} generates its answers and has no ONNX export; serve the version itself."
        )
    needed("onnx", "onnxscript")
    store.configure()
    client = MlflowClient()
    registered = registered or task.registered
    name = f"{registered}-onnx"
    found = client.get_model_version(registered, version)
    already = _exported(client, name, found)
    if set(already) == set(PRECISIONS):
        return [f"Version {version} is exported already: {_listed(name, already)}."]
    run = mlflow.get_run(found.tags["run_id"])
    with scratch() as folder:
        bundle, example = versions.self_contained(f"models:/{registered}/{version}", folder)
        family = read_bundle(bundle).model_type
        if reason := refusal(family):
            raise UserError(
                f"--export onnx: {family} has no ONNX export: {reason}. Serve the version itself."
            )
        asked = checking.questions(run, example, data_dir, task)
        records = _records(asked, task)
        own = first_answers(bundle, records, task)
        model, tokenizer, info = load_bundle(bundle, merge=True)
        files = export(model, task.onnx_outputs, folder / "onnx")
        validation, record = _validation(run, asked, data_dir, task)
        choices = max(1, math.ceil(float(run.data.params.get("num_train_epochs", 1))))
        lines, expected = [], _score(own, records, asked, task)
        for precision in PRECISIONS:
            exported = replace(info, runtime=f"onnx-{precision}")
            made = _bundle(folder / precision, exported, model, tokenizer, files[precision])
            answers = first_answers(made, records, task)
            figures = _parity(own, answers, task) | {"score": _score(answers, records, asked, task)}
            figures["lost"] = expected - figures["score"]
            if precision == "fp32" and figures["furthest"] > TOLERANCE:
                raise UserError(
                    f"The ONNX version of {registered} version {version} answers {figures['other']} of "
                    f"{count_of(len(records), f'test {task.unit}')} differently (probabilities up to {figures['furthest']:.3f} apart), "
                    "so it was not registered."
                )
            kind = f"{precision}: {figures['same']} of {len(records)} answers are the same, {LABELS[task.metric]} "
            kind += f"{figures['score']:.2f} instead of {expected:.2f}"
            size = versions.size_mib(made)
            if figures["lost"] > MOST_LOST:
                lines.append(f"{kind}, more than {MOST_LOST:g} lost: not registered.")
                continue
            # After all that may refuse it: validation takes as long as the test.
            settings = recertifying.settings(task, made, dict(info.settings), validation, record, choices)
            write_info(made, replace(exported, settings=settings))
            logged = model_logging.log_bundle(made, example, run_id=run.info.run_id, name=f"onnx-{precision}")
            number = _register(client, name, logged.model_uri, found, precision, figures, size, kind)
            lines.append(f"{kind}, {size:.0f} MiB: models:/{name}@{precision}, version {number}.")
    return lines


def _validation(
    run: Run, asked: checking.Questions, data_dir: str | Path | None, task: Task
) -> tuple[list[Example], DataRecord | None]:
    """The validation data of a run and its record; ([], None) where it is not available."""
    if not asked.examples:
        return [], None
    splits, record = prepared.load(data_dir or run.data.params.get("data_dir", task.data_dir))
    return splits["validation"].to_list(), record


def _bundle(folder: Path, info: BundleInfo, model: Any, tokenizer: Any, network: Path) -> Path:
    """A saved model that runs in ONNX Runtime, made in a folder. network: the exported file."""
    # MLflow keeps the folder's name.
    made = folder / "bundle"
    (made / "base").mkdir(parents=True)
    model.config.save_pretrained(made / "base")
    tokenizer.save_pretrained(made / "base")
    shutil.copy(network, made / ONNX)
    write_info(made, info)
    return made


def _exported(client: MlflowClient, name: str, version: ModelVersion) -> dict[str, str]:
    """Precision → number of the exported version that holds its alias, for exports of this version."""
    found = {}
    for precision in PRECISIONS:
        number = champion.by_alias(client, name, precision)
        if number is not None:
            tags = client.get_model_version(name, number).tags
            # A version that was moved here names the number of its first store.
            of_run = tags.get("run_id") == version.tags.get("run_id")
            if of_run and tags.get("exported_from") == str(version.version):
                found[precision] = number
    return found


def _listed(name: str, numbers: Mapping[str, str]) -> str:
    return ", ".join(f"{precision} is version {number} of {name}" for precision, number in numbers.items())


def _records(asked: checking.Questions, task: Task) -> list[dict]:
    """Every test example that a served model accepts, with its id; the sample if the data is not available."""
    served = model_logging.module_of(task)
    if not asked.examples:
        return [{**record, "id": row["id"]} for record, row in zip(asked.asked, asked.rows, strict=True)]
    records = [{"id": row["id"], **task.request(asked.examples[row["id"]])} for row in asked.every]
    return [record for record in records if served.is_taken(task.request(record))]


def first_answers(bundle: Path, records: Sequence[Mapping], task: Task) -> list[dict]:
    """The first answer to each record, without going through MLflow."""
    served = model_logging.module_of(task)
    plain = [{name: value for name, value in record.items() if name != "id"} for record in records]
    return served.best_answers(bundle, plain)


def _parity(own: Sequence[Mapping], answers: Sequence[Mapping], task: Task) -> dict[str, float]:
    """`same`: equal answers; `other`: the rest; `furthest`: the largest difference in probability among those."""
    distances = [task.apart(a, b) for a, b in zip(own, answers, strict=True)]
    apart = [distance for distance in distances if distance is not None]
    return {"same": len(own) - len(apart), "other": len(apart), "furthest": max(apart, default=0.0)}


def _score(
    answers: Sequence[Mapping], records: Sequence[Mapping], asked: checking.Questions, task: Task
) -> float:
    """The task's deciding score in percent; if the references are not available, of agreement with the run's own rows."""
    rows = {row["id"]: row for row in asked.every}
    ids = [record["id"] for record in records]
    examples = [asked.examples[id_] for id_ in ids] if asked.examples else []
    return task.served_score(answers, [rows[id_] for id_ in ids], examples)


def _register(
    client: MlflowClient,
    name: str,
    uri: str,
    source: ModelVersion,
    precision: str,
    figures: Mapping[str, float],
    size: float,
    summary: str,
) -> str:
    tags = {
        key: source.tags[key]
        for key in ("task", "technique", "checkpoint", "run_id", *versions.OF_DATA)
        if key in source.tags
    }
    tags |= {
        "exported_from": str(source.version),
        "precision": precision,
        "size_mib": f"{size:.4f}",
        **{f"export_{key}": f"{value:.4f}" for key, value in figures.items()},
    }
    version = versions.create(
        client,
        name,
        f"{source.name} exported to ONNX Runtime, for serving on a CPU.",
        uri,
        tags,
        f"Made of {source.name} version {source.version}. On its test data, {summary}.",
    )
    client.set_registered_model_alias(name, precision, version.version)
    return str(version.version)
