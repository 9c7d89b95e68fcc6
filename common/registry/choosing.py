"""Which finished run is the candidate: the best by validation on one data set. Nothing is chosen by test figures."""

import math

import pandas as pd

from ..errors import UserError
from ..scoring.names import LABELS
from ..tasks.interface import Task
from ..tasks.table import DEFAULT_TASK, TASKS


def choose(
    runs: pd.DataFrame, data_fingerprint: str | None = None, task: Task = TASKS[DEFAULT_TASK]
) -> tuple[pd.Series, list[str]]:
    """The run with the best validation score on one data set, and a line for each part that was left out.

    runs: of the task, newest first, as `finished_runs` gives them, with the column `max_validation_samples` as logged.
    Runs validated on fewer questions than others are left out, because small samples have the luckiest scores. Among equally
    good runs the one with the fewest trainable parameters is chosen, then the oldest.
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
