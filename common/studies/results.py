"""The results of a study: its table, the files that each row left, the report."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..durations import clock
from ..files import write_json
from ..reports.configurations import FAILED, FINISHED, MISSING, SIZE, STOPPED
from ..reports.text_tables import to_text
from ..scoring.names import LABELS
from ..tracking import runs
from ..tracking.provenance import of_command
from ..training.settings import RunArgs
from . import decisions, outcomes
from .sections import folder_name
from .status import Entry, Status

ARTIFACTS = ("predictions", "log_history.json", "config.yaml", "gradient_norms.json", "provenance.json")
"""The artifacts that are copied from a run, if it has them."""


def table(status: Status, entries: Sequence[Entry]) -> pd.DataFrame:
    """A row for each entry: what it is, its status, what was measured (NaN if nothing was); with a `stop`, after how many seeds
    its candidate was `decided`. An axis of training examples has
    the number that was used: data with fewer than a row asks for gives all it has."""
    measured = outcomes.columns(status.task.metrics)
    stops = any(stage.stop for stage in status.study.stages)
    planned = [status.plan(entry.row) for entry in entries]
    return pd.DataFrame(
        outcomes.record(
            replace(entry.row, technique=plan.technique),
            status.study.axes,
            _column_status(entry.status),
            entry.run_id,
            entry.reason,
        )
        | {"checkpoint": plan.args.model_checkpoint}
        | _examples(status, plan.args)
        | ({"decided": entry.decision.seeds if entry.decision else None} if stops else {})
        | {name: entry.metrics.get(name, float("nan")) for name in measured}
        for entry, plan in zip(entries, planned, strict=True)
    )


def _examples(status: Status, args: RunArgs) -> dict[str, int]:
    asked = args.max_train_samples
    if SIZE not in status.study.axes or asked is None:
        return {}
    return {SIZE: min(asked, status.size(args.task, args.data_dir, "train"))}


def distinct(frame: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """A study's table without the rows that repeat others on the same data, because both asked for more than there is."""
    if SIZE not in axes:
        return frame
    finished_first = frame.sort_values("status", key=lambda status: status != FINISHED, kind="stable")
    keys = ["stage", "technique", "checkpoint", *axes, "seed"]
    repeated = finished_first[keys].astype(str).duplicated()
    return frame[~repeated.reindex(frame.index)]


def _column_status(status: str) -> str:
    """A status as reports know it."""
    return status if status in (FINISHED, FAILED, STOPPED) else MISSING


def as_text(status: Status, entries: Sequence[Entry]) -> str:
    """The same for a terminal: each row's name, which shows what rows differ in, its status and its scores."""
    metric, label = status.task.metric, LABELS[status.task.metric]
    rows = []
    for entry in entries:
        name, found = entry.row.name, entry.metrics
        if entry.status == "undecided" and "(trial" not in name:
            best_of = status.study.stage(entry.row.stage).best_of
            name = f"{entry.row.stage}-{folder_name(entry.row.entry)}-(best of {best_of})-seed={entry.row.args.seed}"
        rows.append(
            {
                "row": name,
                "status": entry.status,
                f"validation {label}": _shown(found.get(f"best_validation_{metric}")),
                f"test {label}": _shown(found.get(f"test_{metric}")),
                "time": clock(found["training_seconds"]) if "training_seconds" in found else "",
            }
        )
    return to_text(pd.DataFrame(rows))


def collect(folder: Path, run_id: str, metrics: Mapping[str, float]) -> None:
    """Copy what a finished run left into the folder of its row, unless it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "metrics.json"
    if file.is_file() and _read(file).get("run_id") == run_id:
        return
    runs.download(run_id, ARTIFACTS, folder)
    # Last: it marks the others as complete.
    write_json(file, {"run_id": run_id, **metrics})


def edges(status: Status, entries: Sequence[Entry]) -> list[str]:
    """`outcomes.edges` of every stage."""
    sentences = []
    for stage in status.study.stages:
        of_stage = [entry for entry in entries if entry.row.stage == stage.name]
        sentences += outcomes.edges(
            [entry.row for entry in of_stage], status.scores(of_stage), stage.searches
        )
    return sentences


def write(
    status: Status,
    entries: Sequence[Entry],
    parent: str,
    write_report: Callable[..., list[Path]],
    decided: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Write study.csv and the report into the study's folder; the files.

    parent: id of the study's MLflow run. write_report: `study_report.write_report`. decided: what `decisions.record` gave.
    """
    frame, file = table(status, entries), status.folder.path / "study.csv"
    frame.to_csv(file, index=False, float_format="%.10g")
    finished = [entry for entry in entries if entry.status == "finished"]
    if not finished:
        return [file]

    left = {entry.run_id: status.folder.row(entry.row.name) for entry in finished if entry.run_id}
    about = provenance(finished[-1].tags, status.folder.row(finished[-1].row.name))
    study = {
        "name": status.study.name,
        "description": status.study.description,
        "task": status.study.task,
        "metric": status.task.metric,
        "axes": status.study.axes,
        "edges": edges(status, entries),
        "decided": list(decided),
        "provenance": about | {"parent_run": parent, "study_file": status.study.file},
        "record": record(status, finished, about),
    }
    histories = {run_id: _read(folder / "log_history.json") for run_id, folder in left.items()}
    gradients = {
        run_id: _read(folder / "gradient_norms.json")
        for run_id, folder in left.items()
        if (folder / "gradient_norms.json").is_file()
    }
    scores: dict[str, dict[str, np.ndarray]] = {}
    for stage in status.study.stages:
        of_stage = {entry.run_id for entry in finished if entry.row.stage == stage.name}
        folders = {run_id: folder for run_id, folder in left.items() if run_id in of_stage}
        scores |= example_scores(folders, status.task.metrics)
    shown = distinct(frame, status.study.axes)
    return [file, *write_report(status.folder.path, study, shown, histories, scores, gradients or None)]


def example_scores(left: dict[str, Path], metrics: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Run → metric → score of each test example, 0 to 1, in one order.

    left: run → the folder of its row. Runs that were tested on other examples than the first one are left out.
    """
    scores: dict[str, dict[str, np.ndarray]] = {}
    ids: list[str] = []
    for run_id, folder in left.items():
        each = {row["id"]: row for row in _read(folder / "predictions" / "test.json")}
        ids = ids or list(each)
        if each.keys() == set(ids):
            scores[run_id] = {metric: np.array([each[id_][metric] for id_ in ids]) for metric in metrics}
    return scores


def provenance(tags: dict[str, str], folder: Path) -> dict[str, str]:
    """What results depend on besides the study's settings. folder: a row's, with what its run left."""
    names = ["checkpoint", "data_name", "data_version", "data_fingerprint", "git_commit", "git_dirty"]
    names += ["device", "cpu", "python", "platform"]
    file = folder / "provenance.json"
    # Runs of earlier versions have all of it as tags.
    about = tags | (_read(file) if file.is_file() else {})
    return {name: about[name] for name in about if name in names or name.startswith("version.")}


def record(status: Status, finished: Sequence[Entry], about: Mapping[str, str]) -> dict[str, Any]:
    """The provenance of a study's figures, as the documentation's results have it. about: what `provenance` gave."""
    command = of_command()
    tags, seeds = finished[-1].tags, sorted({entry.row.args.seed for entry in finished})
    commit = about.get("git_commit", "unknown")[:12] + "-dirty" * (about.get("git_dirty") == "true")
    versions = {name.removeprefix("version."): about[name] for name in about if name.startswith("version.")}
    return {
        "command": command["command"],
        "study": status.study.name,
        "data": f"{tags.get('data_name', '')} ({tags.get('data_version', '')})",
        "data_fingerprint": tags.get("data_fingerprint", ""),
        "model": finished[-1].row.args.model_checkpoint,
        "seeds": seeds,
        "machine": ", ".join(dict.fromkeys(about[name] for name in ("device", "cpu") if name in about)),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": commit,
        "date": command["date"],
    }


def overview(status: Status, entries: Sequence[Entry], left: str) -> str:
    """A study and its rows for a terminal. left: the time that the unfinished rows take."""
    done = sum(entry.status == "finished" for entry in entries)
    figures = f"{done} of {len(entries)} rows are finished; time left: {left}."
    stop = decisions.extent(status, entries)
    notes = "\n".join(filter(None, (figures, stop, unchecked(entries), failures(entries))))
    return f"{status.study.name}: {status.study.description}\n\n{as_text(status, entries)}\n\n{notes}"


def unchecked(entries: Sequence[Entry]) -> str:
    """How many rows this machine cannot check, for each reason; "" if it can check all."""
    reasons = Counter(entry.reason for entry in entries if entry.status == "unchecked")
    return "\n".join(
        f"{n} of {len(entries)} rows cannot be checked here, and they may be finished: {reason}"
        for reason, n in reasons.items()
    )


def failures(entries: Sequence[Entry]) -> str:
    """The rows that failed, each with its reason, and how to train them again; "" if none did."""
    failed = [entry for entry in entries if entry.status == "failed"]
    if not failed:
        return ""
    listed = "".join(f"\n  {entry.row.name}: {entry.reason}" for entry in failed)
    return f"{len(failed)} of {len(entries)} rows failed (--retry_failed runs them again):{listed}"


def _shown(score: float | None) -> str:
    return "" if score is None else f"{score:.1f}"


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
