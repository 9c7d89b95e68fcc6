"""From finished runs to a served version: chosen by validation, checked against the run's own answers, registered.

What is registered holds its base too, so a version can be copied to another machine and loaded there without the
store that it came from. Test figures are carried along for the reader; nothing is chosen by them.
"""

import contextlib
import io
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from . import data, serving, tracking
from .agreement import PROBABILITY_TOLERANCE, TOLERANCE, disagreements, relabelled, rewritten
from .errors import UserError
from .models import fingerprint, read_bundle
from .tasks import DEFAULT_TASK, LABELS, TASKS, Task, task_of

CHAMPION, CHALLENGER = "champion", "challenger"

UNSETTLED = "alias_unsettled"
"""Tag of a version that is made, while it is decided which alias it gets."""

SAMPLE = 50
"""Test questions (or texts) that a model must answer as its run did before it is registered."""


@dataclass(frozen=True)
class Outcome:
    """What `register_best` did. `alias` is None for a version that is neither champion nor challenger."""

    name: str
    """Of the registered model."""
    version: str
    alias: str | None
    run_id: str
    is_new: bool
    notes: tuple[str, ...]
    """What the reader should know: what was left out, how it was checked, what it replaces."""


@tracking.explained()
def register_best(
    experiment_name: str,
    data_fingerprint: str | None = None,
    data_dir: str | Path | None = None,
    task: str | None = None,
) -> Outcome:
    """Register the finished run with the best validation score on one data set, and give it an alias.

    The score is the task's deciding one: F1 of answers, accuracy of labels. task: its name; default: the newest run's.
    data_fingerprint: which data, its first characters suffice; default: the newest run's. data_dir: the prepared data,
    for its contexts or texts; default: the folder that the run was trained from. The version becomes champion, or
    challenger where the champion on the same data is as good by validation. A run that is registered already is not
    registered again. UserError if there is no run, or if the model does not answer as its run did.
    """
    tracking.configure()
    found = tracking.runs(experiment_name)
    if found.empty:
        raise UserError(
            f"The experiment {experiment_name!r} holds no finished run: train first, or name another."
        )
    found, of, left_out = tracking.of_task(found, task)
    limits = {
        id_: mlflow.get_run(id_).data.params.get("max_validation_samples", "None") for id_ in found["run_id"]
    }
    limited = found.assign(max_validation_samples=found["run_id"].map(limits))
    best, notes = choose(limited, data_fingerprint, of)
    notes = [f"Left out: {line}." for line in left_out] + notes
    run = mlflow.get_run(best["run_id"])
    client = mlflow.MlflowClient()
    # Two at once would both find nothing registered and register the same run twice.
    with serving.lock("register"):
        version = _registered(client, run, of)
        is_new = version is None
        if is_new:
            version, checked = _register(client, run, data_dir, of)
            notes.append(checked)
        else:
            notes.append(f"Run {run.info.run_id} is registered already, as version {version.version}.")
        # One that was killed before it could decide left the decision to this one.
        alias, note = _settle_alias(client, version, is_new or UNSETTLED in version.tags, of)
        if UNSETTLED in version.tags:
            client.delete_model_version_tag(of.registered, version.version, UNSETTLED)
    return Outcome(of.registered, str(version.version), alias, run.info.run_id, is_new, tuple(notes + note))


def choose(
    runs: pd.DataFrame, data_fingerprint: str | None = None, task: Task = TASKS[DEFAULT_TASK]
) -> tuple[pd.Series, list[str]]:
    """The run with the best validation score on one data set, and a line for everything that was left out.

    runs: of the task, newest first, as `tracking.runs` gives them, with the column `max_validation_samples` as logged.
    Runs validated on fewer questions than others are left out, for small samples have the luckiest scores. Of equally good
    runs the one with the fewest trainable parameters is taken, then the oldest.
    """
    prints = list(dict.fromkeys(runs["data_fingerprint"]))
    wanted = [p for p in prints if p.startswith(data_fingerprint)] if data_fingerprint else prints[:1]
    if len(wanted) != 1:
        listed = ", ".join(p[:12] for p in prints)
        raise UserError(
            f"--data_fingerprint {data_fingerprint} fits {len(wanted)} of the data sets with finished runs: {listed}."
        )
    notes = []
    for other in (p for p in prints if p != wanted[0]):
        on_it = runs[runs["data_fingerprint"] == other]
        notes.append(
            f"Left out: {len(on_it)} run(s) on other data, {on_it.iloc[0]['data_name']} "
            f"(--data_fingerprint {other[:12]})."
        )
    runs = runs[runs["data_fingerprint"] == wanted[0]]
    score = f"best_validation_{task.metric}"
    runs = runs[runs[score].notna()]
    if runs.empty:
        raise UserError(
            f"None of the finished runs on this data has a validation {LABELS[task.metric]}: train again."
        )
    limit = pd.to_numeric(runs["max_validation_samples"], errors="coerce").fillna(math.inf)
    for _, run in runs[limit < limit.max()].iterrows():
        notes.append(
            f"Left out: run {run['run_id']} ({run['technique']}), validated on {run['max_validation_samples']} "
            f"{task.unit} only."
        )
    ranked = runs[limit == limit.max()].sort_values(
        [score, "trainable_parameters", "ended"], ascending=[False, True, True], kind="stable"
    )
    return ranked.iloc[0], notes


def _registered(client: mlflow.MlflowClient, run, task: Task) -> ModelVersion | None:
    """The version made from this run, or from one with the same settings, data and code."""
    same = {"run_id": run.info.run_id, "run_fingerprint": run.data.tags["run_fingerprint"]}
    for name, value in same.items():
        versions = client.search_model_versions(f"name = '{task.registered}' and tags.{name} = '{value}'")
        if versions:
            return max(versions, key=lambda version: int(version.version))
    return None


def _register(client, run, data_dir, task: Task) -> tuple[ModelVersion, str]:
    trained = _logged_model(run)
    serving.forget_models(run.info.run_id, "self-contained")
    with tempfile.TemporaryDirectory() as scratch:
        bundle, example = _self_contained(trained, Path(scratch))
        about = read_bundle(bundle)
        info = serving.log_bundle(bundle, example, run_id=run.info.run_id, name="self-contained")
    try:
        rows, asked, checked = _questions(run, example, data_dir, task)
        # Loaded from the store, as a server does.
        model = mlflow.pyfunc.load_model(info.model_uri)
        answers = [model.predict(pd.DataFrame([record])).iloc[0].to_dict() for record in asked]
        precision = run.data.params.get("precision", "fp32")
        if task.data == "text":
            wrong = relabelled(
                rows, answers, PROBABILITY_TOLERANCE.get(precision, PROBABILITY_TOLERANCE["fp32"])
            )
        elif task.generates:
            wrong = rewritten(rows, answers, TOLERANCE.get(precision, TOLERANCE["fp32"]))
        else:
            threshold = about.null_threshold if about.version == "v2.0" else None
            wrong = disagreements(rows, answers, threshold, TOLERANCE.get(precision, TOLERANCE["fp32"]))
        if wrong:
            raise UserError(
                f"The model of run {run.info.run_id} does not answer as it did when it was trained, so it is not "
                f"registered ({len(wrong)} of {len(rows)} {task.unit} differ). First: {wrong[0]}. Was the code or were "
                "the libraries changed since? Train again."
            )
    except BaseException:
        # A team's server lets people write into each other's runs, not delete from them.
        with contextlib.suppress(MlflowException):
            client.delete_logged_model(info.model_id)
        raise
    return _create_version(client, info.model_uri, run, checked, task), checked


def _logged_model(run):
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


def _self_contained(trained, folder: Path) -> tuple[Path, dict]:
    """(a copy of the run's saved model with its base inside, the input example that it was logged with)."""
    try:
        stored = Path(
            mlflow.artifacts.download_artifacts(f"models:/{trained.model_id}", dst_path=str(folder / "model"))
        )
        bundle = stored / "artifacts" / "bundle"
        reference = serving.read_reference(bundle)
        if reference is not None:
            base = Path(mlflow.artifacts.download_artifacts(reference["uri"], dst_path=str(folder / "base")))
            held = fingerprint(base)
            if held != reference["fingerprint"]:
                raise UserError(
                    f"The shared base {reference['uri']} was changed since it was stored (its fingerprint is "
                    f"{held[:12]}, not {reference['fingerprint'][:12]}): delete its run and train again."
                )
            shutil.copytree(base, bundle / "base")
            (bundle / serving.REFERENCE).unlink()
        return bundle, Model.load(str(stored)).load_input_example(str(stored)).iloc[0].to_dict()
    except (MlflowException, OSError) as error:
        raise UserError(
            f"The model of run {trained.source_run_id} cannot be read from the store ({str(error).splitlines()[0]}): if "
            "the project's folder was moved, move it back; else delete the run and train again."
        ) from None


def _questions(run, example: Mapping, data_dir, task: Task) -> tuple[list[dict], list[Mapping], str]:
    """(rows of the run's test predictions, what is asked for each, a line that says what is checked)."""
    served = serving.module_of(task)
    rows = tracking.predictions(run.info.run_id)
    wanted = run.data.tags["data_fingerprint"]
    folder = data_dir or run.data.params.get("data_dir", task.data_dir)
    try:
        splits, record = data.load(folder)
        if record["fingerprint"] != wanted:
            raise UserError(
                f"--data_dir {folder} holds other data ({record['fingerprint'][:12]}) than run {run.info.run_id} was "
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
        return (
            [row],
            [example],
            (
                f"Checked on one {task.unit.removesuffix('s')} only, for {folder} no longer holds the run's data (--data_dir names "
                "another folder): it is answered as in training."
            ),
        )
    asked = {e["id"]: {name: e[name] for name in served.ASKED} for e in splits["test"]}
    rows = [row for row in rows if served.is_taken(asked[row["id"]])]
    rows = rows[:: max(1, math.ceil(len(rows) / SAMPLE))]
    return (
        rows,
        [asked[row["id"]] for row in rows],
        f"{len(rows)} test {task.unit} are answered as in training.",
    )


def _create_version(client, model_uri: str, run, checked: str, task: Task) -> ModelVersion:
    name = task.registered
    try:
        client.create_registered_model(name, description=task.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = _tags(run)
    # It prints what the caller says better.
    with contextlib.redirect_stderr(io.StringIO()):
        version = client.create_model_version(
            name,
            model_uri,
            run.info.run_id,
            tags | {UNSETTLED: "true"},
            description=describe(tags, run.data.params, checked),
            model_id=model_uri.removeprefix("models:/"),
        )
    return client.get_model_version(name, version.version)


def _tags(run) -> dict[str, str]:
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

Data: {tags["data_name"]} ({"SQuAD " if task.data == "qa" else ""}{tags["data_version"]}), fingerprint `{tags["data_fingerprint"]}`.
Trainable: {float(tags["trainable_parameters"]):,.0f} of {float(tags["total_parameters"]):,.0f} parameters ({share:.2%}).
Run `{tags["run_id"]}` of the experiment {tags["experiment"]}; code at commit `{tags.get("git_commit", "unknown")}`{dirty}.
{checked}

| parameter | value |
| --- | --- |
{settings}
"""


def _settle_alias(client, version: ModelVersion, is_new: bool, task: Task) -> tuple[str | None, list[str]]:
    """Give a version its alias: (the alias that it has then, what is to be said about it).

    A version that was there before takes no champion's place on the same data: somebody may have put it back.
    """
    name = task.registered
    held = [a for a in (CHAMPION, CHALLENGER) if _by_alias(client, name, a) == str(version.version)]
    if held:
        return held[0], []
    champion = _by_alias(client, name, CHAMPION)
    if champion is None:
        alias, notes = CHAMPION, []
    else:
        tags = client.get_model_version(name, champion).tags
        if not is_new and _comparable(tags, version.tags, task):
            return None, [f"Champion is version {champion}; the aliases stay as they are."]
        alias, note = judge(tags, champion, version.tags, version.version, task)
        notes = [note]
    client.set_registered_model_alias(name, alias, version.version)
    return alias, notes


def judge(
    old: Mapping[str, str],
    old_version: str,
    new: Mapping[str, str],
    new_version: str,
    task: Task = TASKS[DEFAULT_TASK],
) -> tuple[str, str]:
    """(alias of the new version, why). old, new: tags of the champion and of the version that challenges it."""
    if not _comparable(old, new, task):
        return CHAMPION, (
            f"Version {old_version} was champion on other data, {_data(old)}: scores cannot be compared, so version "
            f"{new_version}, on {_data(new)}, takes its place."
        )
    before, now = (float(tags[f"best_validation_{task.metric}"]) for tags in (old, new))
    score = f"validation {LABELS[task.metric]}"
    if before >= now:
        return CHALLENGER, (
            f"Version {old_version} ({old['technique']}) stays champion: {score} {before:.2f}; version "
            f"{new_version} has {now:.2f}."
        )
    return CHAMPION, (
        f"Version {old_version} ({old['technique']}, {score} {before:.2f}) gives way to version {new_version} "
        f"({now:.2f})."
    )


def _comparable(old: Mapping[str, str], new: Mapping[str, str], task: Task) -> bool:
    """Whether two versions were validated on the same questions; one that was registered by hand has no tags."""
    same = ("data_fingerprint", "max_validation_samples")
    return f"best_validation_{task.metric}" in old and all(old.get(name) == new.get(name) for name in same)


def _data(tags: Mapping[str, str]) -> str:
    limit = tags.get("max_validation_samples", "None")
    part = "" if limit == "None" else f", validated on {limit} questions"
    return f"{tags.get('data_name', 'unknown')} ({tags.get('data_fingerprint', 'no fingerprint')[:12]}{part})"


def _by_alias(client, name: str, alias: str) -> str | None:
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
