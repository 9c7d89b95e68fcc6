"""Versions of registered models: how they are created and found, and the tags and the page of a run's version.

A version holds its base, so that it can be copied to another machine and loaded there without its original store.
"""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from ..errors import UserError
from ..reports.text_tables import to_markdown
from ..scoring.names import LABELS
from ..serving import stored_code
from ..tasks import naming
from ..tasks.interface import Task
from ..tasks.table import DEFAULT_TASK, task_of
from .gate import CHAMPION, Rules, Verdict

PROMOTION = "### Promotion"
"""Heading of the last part of a version's page, which is rewritten whenever the version is judged."""

LONGEST_PAGE = 5000
"""Characters of a version's page that the database of a team's server takes; SQLite takes any number."""

FIGURES = ("gate_difference", "gate_low", "gate_high", "gate_p")
"""Tags of a version that was compared with a champion."""

PASSED, HELD_BACK = "passed", "held back"


OF_DATA = ("data_name", naming.TAG, "labels", "data_version", "data_language", "data_fingerprint")
"""Tags of runs and versions that say what data a model was trained on."""

SAME_RUN = ("run_id", "run_fingerprint")
"""Tags of a version of a run; versions of the same run, or of runs with the same settings, data and code, are the same."""


def first_with(client: MlflowClient, name: str, tags: Mapping[str, str]) -> ModelVersion | None:
    """The first version of a registered model that has one of these tags; the tags are tried in order."""
    for tag, value in tags.items():
        found = client.search_model_versions(f"name = '{name}' and tags.{tag} = '{value}'")
        if found:
            return min(found, key=lambda version: int(version.version))
    return None


def of_run(client: MlflowClient, run: Run, task: Task) -> ModelVersion | None:
    """The first version of this run, or of one with the same settings, data and code."""
    tags = {"run_id": run.info.run_id, "run_fingerprint": run.data.tags["run_fingerprint"]}
    return first_with(client, naming.registered(task, run.data.tags), tags)


def logged_model(run: Run) -> LoggedModel:
    """The model that training logged into the run."""
    models = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id],
        filter_string=f"source_run_id = '{run.info.run_id}' AND name = 'model'",
        order_by=[{"field_name": "creation_timestamp", "ascending": False}],
        output_format="list",
    )
    ready = [model for model in models if model.status == "READY"]
    if not ready:
        raise UserError(f"Run {run.info.run_id} holds no logged model: delete the run and train again.")
    return ready[0]


def asked(run: Run) -> tuple[str, ...]:
    """The columns of a request to the model that training logged into the run."""
    uri = f"models:/{logged_model(run).model_id}"
    return tuple(mlflow.models.get_model_info(uri).signature.inputs.required_input_names())


def self_contained(uri: str, folder: Path) -> tuple[Path, dict]:
    """(a copy of a stored model's bundle with its base inside, the input example that it was logged with)."""
    stored = stored_code.verified(uri, folder)
    return stored / "artifacts" / "bundle", Model.load(str(stored)).load_input_example(str(stored)).iloc[
        0
    ].to_dict()


def size_mib(bundle: Path) -> float:
    """Size of all files of a saved model."""
    return sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file()) / 2**20


def create(
    client: MlflowClient,
    name: str,
    about: str,
    model_uri: str,
    tags: Mapping[str, str],
    page: str,
    *,
    run_id: str | None = None,
    same: Sequence[str] = (),
) -> ModelVersion:
    """Create a version of a registered model from a logged model.

    about: description of the registered model, if it does not exist yet. model_uri: `models:/` and the logged model's
    id. page: the version's page, in Markdown. run_id: the run that the version's page links to. same: names of tags; versions
    that share the value of one of them are the same. If another machine has created such a version in the meantime, both
    keep the first one, which is returned.
    """
    try:
        client.create_registered_model(name, description=about)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model_id = model_uri.removeprefix("models:/")
    # One call, so that no version is ever without its tags and its page.
    version = client.create_model_version(
        name, model_uri, run_id, dict(tags), description=fitted(page), model_id=model_id
    )
    first = first_with(client, name, {tag: tags[tag] for tag in same}) or version
    if first.version != version.version:
        with contextlib.suppress(MlflowException):
            client.delete_model_version(name, version.version)
    else:
        _link(client, model_id, version)
    return client.get_model_version(name, first.version)


def _link(client: MlflowClient, model_id: str, version: ModelVersion) -> None:
    """Name the version on the logged model's page, as MLflow's server and its `register_model` do."""
    listed = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if not any(
        (entry["name"], str(entry["version"])) == (version.name, str(version.version)) for entry in listed
    ):
        listed.append({"name": version.name, "version": version.version})
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(listed)})


def note(
    client: MlflowClient,
    version: ModelVersion,
    verdict: Verdict,
    against: str | None,
    measured: Mapping[str, float],
    rules: Rules,
    demands: str = "",
) -> None:
    """Record the verdict on a version, as tags and on its page. against: the champion's number. demands: further requirements
    that were judged, in words.

    The result is recorded, not which version is champion: only the alias says that.
    """
    passed = verdict.alias == CHAMPION
    figures = {**measured, **verdict.figures}
    tags = {
        "gate": PASSED if passed else HELD_BACK,
        "gate_against": f"version {against}" if against else "no champion",
        "gate_reasons": "; ".join(verdict.reasons)[:5000],
        "gate_rules": " ".join(
            [*(f"{name}={value}" for name, value in vars(rules).items()), demands]
        ).strip()[:5000],
        **{name: f"{value:.4f}" for name, value in figures.items() if math.isfinite(value)},
    }
    name, number = version.name, version.version
    found = client.get_model_version(name, number)
    for key in set(found.tags) & {*FIGURES} - tags.keys():
        client.delete_model_version_tag(name, number, key)
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)
    page = (found.description or "").split(PROMOTION)[0].rstrip()
    client.update_model_version(name, number, fitted(page, "\n\n" + _promotion(tags, verdict)))


def fitted(page: str, last: str = "") -> str:
    """A page with its last part behind it, of at most LONGEST_PAGE characters: what is too much is cut, first from the page."""
    last = _cut(last, LONGEST_PAGE - min(len(page), LONGEST_PAGE // 4))
    return _cut(page, LONGEST_PAGE - len(last)) + last


def _cut(text: str, longest: int) -> str:
    """The first whole lines of a text that is too long, and an ellipsis."""
    return text if len(text) <= longest else text[: longest - 2].rpartition("\n")[0] + "\n…"


def _promotion(tags: Mapping[str, str], verdict: Verdict) -> str:
    heading = f"{tags['gate'].capitalize()}, judged against {tags['gate_against']} by the rules `{tags['gate_rules']}`:"
    reasons = "".join(f"- {reason}\n" for reason in verdict.reasons)
    latency = f"{float(tags['latency_ms']):.0f} ms" if "latency_ms" in tags else "not measured"
    return (
        f"{PROMOTION}\n\n{heading}\n\n{reasons}\nMedian latency of a single request: {latency}; size "
        f"{float(tags['size_mib']):.1f} MiB.\n"
    )


def tags_of(run: Run) -> dict[str, str]:
    """Tags with what a version must record itself, because MLflow gives None for the metrics and parameters of its run."""
    about = ("technique", "family", "task", "checkpoint", "base_fingerprint", "run_fingerprint")
    names = (*about, *OF_DATA, "git_commit", "git_dirty")
    tags = {name: run.data.tags[name] for name in names if run.data.tags.get(name)}
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
    rows = {
        f"validation (chosen by its {LABELS[task.metric]})": "best_validation",
        f"test (95% interval), {tags.get('test_examples', '?')} {task.unit}": "test",
    }
    scores = pd.DataFrame(
        [[row, *(figure(f"{start}_{name}") for name in metrics)] for row, start in rows.items()],
        columns=["", *(LABELS[name] for name in metrics)],
    )
    share = float(tags["trainable_parameters"]) / float(tags["total_parameters"])
    dirty = " with uncommitted changes" if tags.get("git_dirty") == "true" else ""
    labels = f"Labels: {tags['labels']}.\n" if tags.get("labels") else ""
    given = {name: " ".join(value.split()) for name, value in params.items() if value != "None"}
    # Not a table, whose lines tabulate would all pad to the longest value.
    settings = "".join(
        f"- {name}: {value if len(value) <= 200 else value[:200] + '…'}\n"
        for name, value in sorted(given.items())
        if name != "data_dir"
    )
    return f"""## {tags["technique"]} on {tags["checkpoint"]}

{to_markdown(scores)}
Data: {tags["data_name"]} ({task.data_title(tags["data_version"])}), fingerprint `{tags["data_fingerprint"]}`.
{labels}Trainable: {float(tags["trainable_parameters"]):,.0f} of {float(tags["total_parameters"]):,.0f} parameters ({share:.2%}).
Run `{tags["run_id"]}` of the experiment {tags["experiment"]}; code at commit `{tags.get("git_commit", "unknown")}`{dirty}.
{checked}

Parameters:

{settings}"""
