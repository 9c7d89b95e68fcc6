"""From finished runs to a served version: chosen by validation, checked against the run's own answers, registered.

What is registered holds its base too, so a version can be copied to another machine and loaded there without the
store that it came from. Test figures are carried along for the reader; nothing is chosen by them.
"""

import contextlib
import io
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from . import answering, data, serving, tracking
from .errors import UserError
from .models import fingerprint, read_bundle

NAME = "bert-squad-qa"
CHAMPION, CHALLENGER = "champion", "challenger"

SAMPLE = 50
"""Test questions that a model must answer as its run did before it is registered."""

TOLERANCE = {"fp32": 0.01, "fp16": 0.5, "bf16": 0.5}
"""Difference in score (a sum of two logits) between a run and its served model, which answers in float32 and with the
adapter merged: within it two candidates count as equally good. By the run's precision."""


@dataclass(frozen=True)
class Outcome:
    """What `register_best` did. `alias` is None for a version that is neither champion nor challenger."""

    version: str
    alias: str | None
    run_id: str
    is_new: bool
    notes: tuple[str, ...]
    """What the reader should know: what was left out, how it was checked, what it replaces."""


@tracking.explained()
def register_best(
    experiment_name: str, data_fingerprint: str | None = None, data_dir: str | Path | None = None
) -> Outcome:
    """Register the finished run with the best validation F1 on one data set, and give it an alias.

    data_fingerprint: which data, its first characters suffice; default: the newest run's. data_dir: the prepared data,
    for its contexts; default: the folder that the run was trained from. The version becomes champion, or challenger
    where the champion on the same data is as good by validation F1. A run that is registered already is not
    registered again. UserError if there is no run, or if the model does not answer as its run did.
    """
    tracking.configure()
    found = tracking.runs(experiment_name)
    if found.empty:
        raise UserError(
            f"The experiment {experiment_name!r} holds no finished run: train first, or name another."
        )
    limits = {
        id_: mlflow.get_run(id_).data.params.get("max_validation_samples", "None") for id_ in found["run_id"]
    }
    best, notes = choose(found.assign(max_validation_samples=found["run_id"].map(limits)), data_fingerprint)
    run = mlflow.get_run(best["run_id"])
    client = mlflow.MlflowClient()
    # Two at once would both find nothing registered and register the same run twice.
    with serving.lock("register"):
        version = _registered(client, run)
        is_new = version is None
        if is_new:
            version, checked = _register(client, run, data_dir)
            notes.append(checked)
        else:
            notes.append(f"Run {run.info.run_id} is registered already, as version {version.version}.")
        alias, note = _settle_alias(client, version, is_new)
    return Outcome(str(version.version), alias, run.info.run_id, is_new, tuple(notes + note))


def choose(runs: pd.DataFrame, data_fingerprint: str | None = None) -> tuple[pd.Series, list[str]]:
    """The run with the best validation F1 on one data set, and a line for everything that was left out.

    runs: newest first, as `tracking.runs` gives them, with the column `max_validation_samples` as logged. Runs
    validated on fewer questions than others are left out, for small samples have the luckiest scores. Of equally good
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
    runs = runs[runs["best_validation_f1"].notna()]
    if runs.empty:
        raise UserError("None of the finished runs on this data has a validation F1: train again.")
    limit = pd.to_numeric(runs["max_validation_samples"], errors="coerce").fillna(math.inf)
    for _, run in runs[limit < limit.max()].iterrows():
        notes.append(
            f"Left out: run {run['run_id']} ({run['technique']}), validated on {run['max_validation_samples']} "
            "questions only."
        )
    ranked = runs[limit == limit.max()].sort_values(
        ["best_validation_f1", "trainable_parameters", "ended"], ascending=[False, True, True], kind="stable"
    )
    return ranked.iloc[0], notes


def disagreements(
    recorded: Sequence[Mapping], answers: Sequence[Mapping], threshold: float | None, tolerance: float
) -> list[str]:
    """A line for each question that is not answered as recorded.

    recorded: rows of a run's predictions/test.json; answers: `answer`, `score`, `start`, `end` for each. Another
    answer agrees if the run scored it within `tolerance` of its own; threshold: what "no answer" needs to win by, None
    where it cannot win.
    """
    wrong = []
    for row, answer in zip(recorded, answers, strict=True):
        worth = {
            (entry["start"], entry["end"]): entry["score"]
            - ((threshold or 0.0) if entry["start"] < 0 else 0.0)
            for entry in row["n_best"]
        }
        own = worth.get((row["start"], row["end"]), math.nan)
        place = (answer["start"], answer["end"])
        if place == (row["start"], row["end"]):
            agrees = (
                answer["answer"] == row["prediction"]
                and abs(answer["score"] - row["probability"]) <= tolerance
            )
        else:
            agrees = abs(worth.get(place, math.inf) - own) <= tolerance
        if not agrees:
            wrong.append(
                f"{row['id']}: {row['question']!r} was answered {row['prediction']!r} ({row['probability']:.3f}), "
                f"now {answer['answer']!r} ({answer['score']:.3f})"
            )
    return wrong


def _registered(client: mlflow.MlflowClient, run) -> ModelVersion | None:
    """The version made from this run, or from one with the same settings, data and code."""
    same = {"run_id": run.info.run_id, "run_fingerprint": run.data.tags["run_fingerprint"]}
    for name, value in same.items():
        versions = client.search_model_versions(f"name = '{NAME}' and tags.{name} = '{value}'")
        if versions:
            return max(versions, key=lambda version: int(version.version))
    return None


def _register(client, run, data_dir) -> tuple[ModelVersion, str]:
    trained = _logged_model(run)
    with tempfile.TemporaryDirectory() as scratch:
        bundle, example = _self_contained(trained, Path(scratch))
        threshold = _threshold(bundle)
        info = serving.log_bundle(bundle, example, run_id=run.info.run_id, name="self-contained")
    try:
        rows, contexts, checked = _questions(run, example, data_dir)
        # Loaded from the store, as a server does.
        model = mlflow.pyfunc.load_model(info.model_uri)
        answers = [
            model.predict(pd.DataFrame([{"question": row["question"], "context": context}])).iloc[0].to_dict()
            for row, context in zip(rows, contexts, strict=True)
        ]
        tolerance = TOLERANCE.get(run.data.params.get("precision", "fp32"), TOLERANCE["fp32"])
        wrong = disagreements(rows, answers, threshold, tolerance)
        if wrong:
            raise UserError(
                f"The model of run {run.info.run_id} does not answer as it did when it was trained, so it is not "
                f"registered ({len(wrong)} of {len(rows)} questions differ). First: {wrong[0]}. Was the code or were "
                "the libraries changed since? Train again."
            )
    except BaseException:
        # A team's server lets people write into each other's runs, not delete from them.
        with contextlib.suppress(MlflowException):
            client.delete_logged_model(info.model_id)
        raise
    return _create_version(client, info.model_uri, run, checked), checked


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


def _threshold(bundle: Path) -> float | None:
    info = read_bundle(bundle)
    return info.null_threshold if info.version == "v2.0" else None


def _questions(run, example: Mapping, data_dir) -> tuple[list[dict], list[str], str]:
    """(rows of the run's test predictions, their contexts, a line that says what is checked)."""
    rows = tracking.predictions(run.info.run_id)
    wanted = run.data.tags["data_fingerprint"]
    folder = data_dir or run.data.params.get("data_dir", "squad_data")
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
        row = next((row for row in rows if row["question"] == example["question"]), None)
        if row is None:
            raise UserError(
                f"Nothing is at hand to check the model of run {run.info.run_id} with: name the data that it was "
                "trained on with --data_dir."
            ) from None
        return (
            [row],
            [example["context"]],
            (
                f"Checked on one question only, for {folder} no longer holds the run's data (--data_dir names "
                "another folder): it is answered as in training."
            ),
        )
    test = splits["test"]
    contexts = dict(zip(test["id"], test["context"], strict=True))
    rows = [row for row in rows if answering.is_taken(row | {"context": contexts[row["id"]]})]
    rows = rows[:: max(1, math.ceil(len(rows) / SAMPLE))]
    return (
        rows,
        [contexts[row["id"]] for row in rows],
        f"{len(rows)} test questions are answered as in training.",
    )


def _create_version(client, model_uri: str, run, checked: str) -> ModelVersion:
    try:
        client.create_registered_model(
            NAME, description="Extractive question answering: question and context in, answer out."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = _tags(run)
    # It prints what the caller says better.
    with contextlib.redirect_stderr(io.StringIO()):
        version = mlflow.register_model(model_uri, NAME, tags=tags)
    client.update_model_version(NAME, version.version, describe(tags, run.data.params, checked))
    return client.get_model_version(NAME, version.version)


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

    share = float(tags["trainable_parameters"]) / float(tags["total_parameters"])
    dirty = " with uncommitted changes" if tags.get("git_dirty") == "true" else ""
    settings = "\n".join(
        f"| {name} | {value} |"
        for name, value in sorted(params.items())
        if value != "None" and name != "data_dir"
    )
    return f"""## {tags["technique"]} on {tags["checkpoint"]}

| | EM | F1 |
| --- | --- | --- |
| validation (chosen by its F1) | {figure("best_validation_exact_match")} | {figure("best_validation_f1")} |
| test (95% interval), {tags.get("test_examples", "?")} questions | {figure("test_exact_match")} | {figure("test_f1")} |

Data: {tags["data_name"]} (SQuAD {tags["data_version"]}), fingerprint `{tags["data_fingerprint"]}`.
Trainable: {float(tags["trainable_parameters"]):,.0f} of {float(tags["total_parameters"]):,.0f} parameters ({share:.2%}).
Run `{tags["run_id"]}` of the experiment {tags["experiment"]}; code at commit `{tags.get("git_commit", "unknown")}`{dirty}.
{checked}

| parameter | value |
| --- | --- |
{settings}
"""


def _settle_alias(client, version: ModelVersion, is_new: bool) -> tuple[str | None, list[str]]:
    """Give a version its alias: (the alias that it has then, what is to be said about it).

    A version that was there before takes no champion's place on the same data: somebody may have put it back.
    """
    held = [alias for alias in (CHAMPION, CHALLENGER) if _by_alias(client, alias) == str(version.version)]
    if held:
        return held[0], []
    champion = _by_alias(client, CHAMPION)
    if champion is None:
        alias, notes = CHAMPION, []
    else:
        tags = client.get_model_version(NAME, champion).tags
        if not is_new and _comparable(tags, version.tags):
            return None, [f"Champion is version {champion}; the aliases stay as they are."]
        alias, note = judge(tags, champion, version.tags, version.version)
        notes = [note]
    client.set_registered_model_alias(NAME, alias, version.version)
    return alias, notes


def judge(
    old: Mapping[str, str], old_version: str, new: Mapping[str, str], new_version: str
) -> tuple[str, str]:
    """(alias of the new version, why). old, new: tags of the champion and of the version that challenges it."""
    if not _comparable(old, new):
        return CHAMPION, (
            f"Version {old_version} was champion on other data, {_data(old)}: scores cannot be compared, so version "
            f"{new_version}, on {_data(new)}, takes its place."
        )
    before, now = (float(tags["best_validation_f1"]) for tags in (old, new))
    if before >= now:
        return CHALLENGER, (
            f"Version {old_version} ({old['technique']}) stays champion: validation F1 {before:.2f}; version "
            f"{new_version} has {now:.2f}."
        )
    return CHAMPION, (
        f"Version {old_version} ({old['technique']}, validation F1 {before:.2f}) gives way to version {new_version} "
        f"({now:.2f})."
    )


def _comparable(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    """Whether two versions were validated on the same questions; one that was registered by hand has no tags."""
    same = ("data_fingerprint", "max_validation_samples")
    return "best_validation_f1" in old and all(old.get(name) == new.get(name) for name in same)


def _data(tags: Mapping[str, str]) -> str:
    limit = tags.get("max_validation_samples", "None")
    part = "" if limit == "None" else f", validated on {limit} questions"
    return f"{tags.get('data_name', 'unknown')} ({tags.get('data_fingerprint', 'no fingerprint')[:12]}{part})"


def _by_alias(client, alias: str) -> str | None:
    try:
        return str(client.get_model_version_by_alias(NAME, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
