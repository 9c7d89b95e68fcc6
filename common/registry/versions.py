"""A version of a registered model: made of a run's model, its base inside, with tags and a page that speak for themselves.

A version can be copied to another machine and loaded there without the store that it came from.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from ..errors import UserError
from ..scoring.names import LABELS
from ..serving import stored_code
from ..tasks.interface import Task
from ..tasks.table import DEFAULT_TASK, task_of
from .checking import Checked
from .gate import CHAMPION, Rules, Verdict

PROMOTION = "### Promotion"
"""Heading of the last part of a version's page, which is written anew whenever the version is judged."""

FIGURES = ("gate_difference", "gate_low", "gate_high", "gate_p")
"""Tags of a version that was compared with a champion."""

PASSED, HELD_BACK = "passed", "held back"


def of_run(client: mlflow.MlflowClient, run, task: Task) -> ModelVersion | None:
    """The first version made from this run, or from one with the same settings, data and code."""
    same = {"run_id": run.info.run_id, "run_fingerprint": run.data.tags["run_fingerprint"]}
    for name, value in same.items():
        versions = client.search_model_versions(f"name = '{task.registered}' and tags.{name} = '{value}'")
        if versions:
            return min(versions, key=lambda version: int(version.version))
    return None


def logged_model(run):
    """The model that training logged into the run."""
    models = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id],
        filter_string=f"source_run_id = '{run.info.run_id}' AND name = 'model'",
        order_by=[{"field_name": "creation_timestamp", "ascending": False}],
        output_format="list",
    )
    ready = [model for model in models if model.status == "READY"]
    if not ready:
        raise UserError(f"Run {run.info.run_id} holds no logged model; delete the run and train again.")
    return ready[0]


def self_contained(uri: str, folder: Path) -> tuple[Path, dict]:
    """(a copy of a stored model's bundle with its base inside, the input example that it was logged with)."""
    stored = stored_code.verified(uri, folder)
    return stored / "artifacts" / "bundle", Model.load(str(stored)).load_input_example(str(stored)).iloc[
        0
    ].to_dict()


def size_mib(bundle: Path) -> float:
    """Of all files of a saved model."""
    return sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file()) / 2**20


def create(client, model_uri: str, run, checked: Checked, task: Task) -> ModelVersion:
    """A new version of the task's registered model, which is made if need be."""
    name = task.registered
    try:
        client.create_registered_model(name, description=task.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = tags_of(run)
    # One call, so that no version is ever without its tags and its page.
    version = client.create_model_version(
        name,
        model_uri,
        run.info.run_id,
        tags,
        description=describe(tags, run.data.params, checked.told),
        model_id=model_uri.removeprefix("models:/"),
    )
    return client.get_model_version(name, version.version)


def note(
    client,
    version: ModelVersion,
    verdict: Verdict,
    against: str | None,
    measured: Mapping[str, float],
    rules: Rules,
) -> None:
    """Record on a version how it was judged, as tags and on its page; against: the champion's number.

    It tells what was found, not who is champion: the alias does.
    """
    passed = verdict.alias == CHAMPION
    figures = {**measured, **verdict.figures}
    tags = {
        "gate": PASSED if passed else HELD_BACK,
        "gate_against": f"version {against}" if against else "no champion",
        "gate_reasons": "; ".join(verdict.reasons)[:5000],
        "gate_rules": " ".join(f"{name}={value}" for name, value in vars(rules).items()),
        **{name: f"{value:.4f}" for name, value in figures.items() if math.isfinite(value)},
    }
    name, number = version.name, version.version
    found = client.get_model_version(name, number)
    for key in set(found.tags) & {*FIGURES} - tags.keys():
        client.delete_model_version_tag(name, number, key)
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)
    page = found.description or ""
    client.update_model_version(
        name, number, page.split(PROMOTION)[0].rstrip() + "\n\n" + _promotion(tags, verdict)
    )


def _promotion(tags: Mapping[str, str], verdict: Verdict) -> str:
    heading = f"{tags['gate'].capitalize()}, judged against {tags['gate_against']} by the rules `{tags['gate_rules']}`:"
    reasons = "".join(f"- {reason}\n" for reason in verdict.reasons)
    latency = f"{float(tags['latency_ms']):.0f} ms" if "latency_ms" in tags else "not measured"
    return (
        f"{PROMOTION}\n\n{heading}\n\n{reasons}\nMedian latency of a single request: {latency}; size "
        f"{float(tags['size_mib']):.1f} MiB.\n"
    )


def tags_of(run) -> dict[str, str]:
    """What a version must tell by itself: MLflow gives its run's metrics and parameters back as None."""
    names = (
        "technique family task checkpoint base_fingerprint data_name data_version data_fingerprint run_fingerprint "
        "git_commit git_dirty"
    )
    tags = {name: run.data.tags[name] for name in names.split() if run.data.tags.get(name)}
    figures = {
        name: value
        for name, value in run.data.metrics.items()
        if name.startswith(("test_", "best_validation_"))
        or name in ("trainable_parameters", "total_parameters")
    }
    whole = {
        name: f"{value:.0f}" if float(value).is_integer() else f"{value:.4f}"
        for name, value in figures.items()
    }
    return {
        **tags,
        **whole,
        "max_validation_samples": run.data.params.get("max_validation_samples", "None"),
        "run_id": run.info.run_id,
        "experiment": mlflow.get_experiment(run.info.experiment_id).name,
    }


def describe(tags: Mapping[str, str], params: Mapping[str, str], checked: str) -> str:
    """A version's page, in Markdown. tags: the version's own."""

    def figure(name: str) -> str:
        value = f"{float(tags[name]):.1f}" if name in tags else "–"
        if f"{name}_low" in tags:
            value += f" ({float(tags[f'{name}_low']):.1f} to {float(tags[f'{name}_high']):.1f})"
        return value

    task = task_of(tags.get("task", DEFAULT_TASK))
    metrics = list(reversed(task.metrics))

    def cells(start: str) -> str:
        return " | ".join(figure(f"{start}_{name}") for name in metrics)

    share = float(tags["trainable_parameters"]) / float(tags["total_parameters"])
    dirty = " with uncommitted changes" if tags.get("git_dirty") == "true" else ""
    settings = "\n".join(
        f"| {name} | {value} |"
        for name, value in sorted(params.items())
        if value != "None" and name != "data_dir"
    )
    return f"""## {tags["technique"]} on {tags["checkpoint"]}

| | {" | ".join(LABELS[name] for name in metrics)} |
| --- |{" --- |" * len(metrics)}
| validation (chosen by its {LABELS[task.metric]}) | {cells("best_validation")} |
| test (95% interval), {tags.get("test_examples", "?")} {task.unit} | {cells("test")} |

Data: {tags["data_name"]} ({task.data_title(tags["data_version"])}), fingerprint `{tags["data_fingerprint"]}`.
Trainable: {float(tags["trainable_parameters"]):,.0f} of {float(tags["total_parameters"]):,.0f} parameters ({share:.2%}).
Run `{tags["run_id"]}` of the experiment {tags["experiment"]}; code at commit `{tags.get("git_commit", "unknown")}`{dirty}.
{checked}

| parameter | value |
| --- | --- |
{settings}
"""
