"""Runs of one task and their scores for each example → a table with paired tests against the best run."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..durations import clock
from ..errors import UserError
from ..scoring.bootstrap import paired_bootstrap
from ..scoring.names import LABELS
from ..tasks.interface import Task
from ..tasks.table import DEFAULT_TASK, TASKS
from .decisive import smallest_differences

QA = TASKS[DEFAULT_TASK]

COSTS = ("trainable", "time", "samples/s", "memory MiB", "adapter MiB", "learning rate", "epochs")
"""Columns of `display` beside `score_columns`; either part fits a terminal."""


def columns(task: Task) -> tuple[str, ...]:
    """Columns of a comparison. Scores are in percent, the difference of the deciding one in points."""
    scores = [f"test_{name}{end}" for name in _shown(task) for end in ("", "_low", "_high")]
    return (
        "label",
        "technique",
        "checkpoint",
        "run_id",
        "run_name",
        *scores,
        f"{task.metric}_difference",
        f"{task.metric}_difference_low",
        f"{task.metric}_difference_high",
        f"{task.metric}_p",
        f"{task.metric}_detectable",
        "trainable_percent",
        "trainable_parameters",
        "total_parameters",
        "training_seconds",
        "train_samples_per_second",
        "peak_memory_mib",
        "adapter_mib",
        "learning_rate",
        "num_train_epochs",
        "batch_size",
        "max_train_samples",
        "seed",
        "settings",
        "device",
        "test_examples",
        "data_name",
        "data_version",
        "data_fingerprint",
    )


def score_columns(task: Task) -> tuple[str, ...]:
    """Columns of `display` that tell how good a run is."""
    scores = [f"{LABELS[name]} [95%]" for name in _shown(task)]
    return ("technique", *scores, f"{LABELS[task.metric]} - best [95%]", "p")


def _shown(task: Task) -> list[str]:
    """The scores of a run that a table shows, in its order."""
    return [*task.further_scores, *reversed(task.metrics)]


def note(task: Task) -> str:
    """What is to be known to read a table."""
    return (
        f"Brackets: 95% bootstrap intervals over the test {task.unit}. {LABELS[task.metric]} - best: paired bootstrap "
        "against the first row;\np is two-sided and not corrected for the number of rows. Time is that of training "
        "alone."
    )


def choose_data(runs: pd.DataFrame, fingerprint: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The runs on one data set, and a line for each other one that tells how to ask for it.

    runs: newest first, as `finished_runs` gives them. The data is that of the newest run, or that whose fingerprint
    begins as given; UserError where no or more than one does.
    """
    held = list(dict.fromkeys(runs["data_fingerprint"]))
    names = {held_: _data_line(runs[runs["data_fingerprint"] == held_]) for held_ in held}
    found = [held_ for held_ in held if held_.startswith(fingerprint or "")]
    if fingerprint is None:
        found = held[:1]
    if len(found) != 1:
        listed = "".join(f"\n  {line}" for line in names.values())
        raise UserError(
            f"--data_fingerprint {fingerprint} fits {len(found)} of the data sets that were trained on:{listed}"
        )
    others = [line for held_, line in names.items() if held_ != found[0]]
    return runs[runs["data_fingerprint"] == found[0]], others


def choose_runs(
    runs: pd.DataFrame, read: Callable[[str], Sequence[Mapping]], every: bool = False, task: Task = QA
) -> tuple[pd.DataFrame, dict[str, np.ndarray], list[str]]:
    """The latest run of each technique and checkpoint, or every one; the deciding score (F1) that each has for each
    question, 0 to 1, in one order of questions; and a line for each run that was left out as it answered other questions.

    runs: newest first, on the same data. read: run id → rows of `id` and the score. Runs with the most questions set the
    questions, the newest of them where they differ.
    """
    asked = runs["test_examples"].fillna(0)
    left_out = [_other_questions(run, task) for _, run in runs[asked < asked.max()].iterrows()]
    chosen, scores, questions, seen = [], {}, None, set()
    for _, run in runs[asked == asked.max()].iterrows():
        kind = (run["technique"], run["checkpoint"])
        if kind in seen and not every:
            continue
        each = {row["id"]: row[task.metric] for row in read(run["run_id"])}
        questions = questions or list(each)
        if each.keys() != set(questions):
            left_out.append(_other_questions(run, task))
            continue
        seen.add(kind)
        chosen.append(run)
        scores[run["run_id"]] = np.array([each[id_] for id_ in questions])
    return pd.DataFrame(chosen), scores, left_out


def compare(
    runs: pd.DataFrame, scores: Mapping[str, Sequence[float] | np.ndarray], task: Task = QA
) -> pd.DataFrame:
    """One row of `columns` for each run, the best by the deciding score first, with the paired bootstrap of each
    against the best.

    scores: run id → the deciding score of each question, 0 to 1, in the same order for all runs.
    """
    by = [f"test_{name}" for name in task.metrics]
    table = runs.sort_values(by, ascending=False, kind="stable").reset_index(drop=True)
    best = scores[table["run_id"][0]]
    differences = [
        {"difference": 0.0, "low": math.nan, "high": math.nan, "p": math.nan}
        if rank == 0
        else paired_bootstrap(scores[run_id], best)
        for rank, run_id in enumerate(table["run_id"])
    ]
    metric = task.metric
    table[f"{metric}_difference"] = [100 * found["difference"] for found in differences]
    table[f"{metric}_difference_low"] = [100 * found["low"] for found in differences]
    table[f"{metric}_difference_high"] = [100 * found["high"] for found in differences]
    table[f"{metric}_p"] = [found["p"] for found in differences]
    table[f"{metric}_detectable"] = smallest_differences(
        table, {run_id: np.asarray(each, dtype=np.float64) for run_id, each in scores.items()}
    )
    table["trainable_percent"] = 100 * table["trainable_parameters"] / table["total_parameters"]
    table["label"] = _labels(table)
    # Runs of earlier versions lack scores that do not decide.
    return table.reindex(columns=list(columns(task)))


def display(table: pd.DataFrame, task: Task = QA) -> pd.DataFrame:
    """A comparison as text: `score_columns`, COSTS, and what the runs differ in beside their technique."""
    scores = {
        f"{LABELS[name]} [95%]": [
            "" if math.isnan(row[0]) else _with_interval(*row) for row in _rows(table, f"test_{name}")
        ]
        for name in _shown(task)
        if name in task.metrics or table[f"test_{name}"].notna().any()
    }
    shown = pd.DataFrame(
        {
            "technique": table["label"],
            **scores,
            f"{LABELS[task.metric]} - best [95%]": [
                "best" if math.isnan(low) else _with_interval(value, low, high, "+")
                for value, low, high in _rows(table, f"{task.metric}_difference")
            ],
            "p": [_number(value, ".3f") for value in table[f"{task.metric}_p"]],
            "trainable": [_number(value, ".2f", "%") for value in table["trainable_percent"]],
            "time": [clock(value) for value in table["training_seconds"]],
            "samples/s": [_number(value, ".1f") for value in table["train_samples_per_second"]],
            "memory MiB": [_number(value, ",.0f") for value in table["peak_memory_mib"]],
            "adapter MiB": [_number(value, ",.2f") for value in table["adapter_mib"]],
            "learning rate": [_number(value, "g") for value in table["learning_rate"]],
            "epochs": [_number(value, "g") for value in table["num_train_epochs"]],
        }
    )
    varying = {
        f"train {task.unit}": [_number(value, ",.0f") or "all" for value in table["max_train_samples"]],
        "seed": [_number(value, ".0f") for value in table["seed"]],
        "device": table["device"],
    }
    for name, values in varying.items():
        if len(set(values)) > 1:
            shown[name] = values
    return shown


def _data_line(runs: pd.DataFrame) -> str:
    first = runs.iloc[0]
    several = "run" if len(runs) == 1 else "runs"
    return (
        f"{first['data_name']} ({first['data_version']}, {len(runs)} {several}): "
        f"--data_fingerprint {first['data_fingerprint'][:12]}"
    )


def _other_questions(run: pd.Series, task: Task) -> str:
    return (
        f"{run['technique']}, run {run['run_id'][:8]}: tested on {run['test_examples']:.0f} other {task.unit}"
    )


def _labels(table: pd.DataFrame) -> list[str]:
    """The technique, with the checkpoint and the run's id as far as they are needed to tell the rows apart."""
    labels = list(table["technique"])
    if table["checkpoint"].nunique() > 1:
        short = [_short(str(name)) for name in table["checkpoint"]]
        labels = [f"{label}, {name}" for label, name in zip(labels, short, strict=True)]
    return [
        f"{label}, {run_id[:6]}" if labels.count(label) > 1 else label
        for label, run_id in zip(labels, table["run_id"], strict=True)
    ]


def _short(checkpoint: str) -> str:
    """The end of a path or of a hub id; a model of the store whole: its end alone would be a number."""
    if checkpoint.startswith("models:/"):
        return checkpoint.removeprefix("models:/")
    if checkpoint.startswith("runs:/"):
        return f"run {checkpoint.removeprefix('runs:/')[:8]}"
    return checkpoint.rstrip("/").rsplit("/", 1)[-1]


def _rows(table: pd.DataFrame, name: str) -> Iterator[Any]:
    return table[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)


def _with_interval(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _number(value: float, form: str, unit: str = "") -> str:
    return "" if math.isnan(value) else f"{value:{form}}{unit}"
