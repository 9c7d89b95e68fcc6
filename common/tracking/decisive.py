"""What a comparison's test data can show, in sentences: differences that it would find, and what would decide the ties."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..scoring import power
from ..scoring.names import LABELS
from ..scoring.uncertainty import Spread, spread_of
from ..tasks.interface import Task

SAME = ("technique", "checkpoint", "settings")
"""Columns in which runs that differ in their seed alone are equal; `settings` is a digest of all other parameters."""

NO_DIFFERENCE = 1e-9
"""Mean difference of scores, 0 to 1, up to which two runs are equal but for rounding."""

TIED = 0.05
"""The p-value from which on two runs are not shown to differ."""


def smallest_differences(table: pd.DataFrame, scores: Mapping[str, np.ndarray]) -> list[float]:
    """For each row the smallest difference, in points, from the first row that the examples would show; NaN where there is
    none to look for. table: the best run first; scores: run id → the deciding score of each example, 0 to 1."""
    best = scores[table["run_id"][0]]
    return [
        math.nan if rank == 0 or len(best) < 2 else 100 * power.smallest_difference(scores[run_id] - best)
        for rank, run_id in enumerate(table["run_id"])
    ]


def sentences(table: pd.DataFrame, scores: Mapping[str, np.ndarray], task: Task) -> list[str]:
    """What the test data can show, and a line for each run that is not shown to differ from the best one.

    table: as `comparison.compare` gives it.
    """
    column = f"{task.metric}_detectable"
    found = table[column].dropna()
    if found.empty:
        return []
    span = f"{found.min():.1f}"
    if found.max() - found.min() >= 0.05:
        span += f" to {found.max():.1f}"
    spread = seed_spread(table, scores)
    lines = [
        f"Against the best run, {len(scores[table['run_id'][0]]):,} test {task.unit} show a true difference in "
        f"{LABELS[task.metric]} of {span} points four times of five (80% power, two-sided 5%), seeds left out."
    ]
    for _, row in table.iterrows():
        if row[f"{task.metric}_p"] >= TIED:
            lines.append(_tie(row, scores, scores[table["run_id"][0]], spread, task))
    return lines


def seed_spread(table: pd.DataFrame, scores: Mapping[str, np.ndarray]) -> Spread | None:
    """How much the mean score, 0 to 1, differs between runs that differ in their seed alone; None where no two do."""
    groups = table.groupby(list(SAME))
    seeds = [group.drop_duplicates("seed")["run_id"] for _, group in groups]
    return spread_of([np.stack([scores[id_] for id_ in ids]) for ids in seeds])


def _tie(
    row: pd.Series,
    scores: Mapping[str, np.ndarray],
    best: np.ndarray,
    spread: Spread | None,
    task: Task,
) -> str:
    behind = best - scores[row["run_id"]]
    name = f"{row['label']}, {100 * behind.mean():.1f} points behind"
    wanted = power.examples_to_decide(behind) if abs(behind.mean()) > NO_DIFFERENCE else math.inf
    if math.isinf(wanted):
        return f"{name}: no number of such {task.unit} would decide it, for the scores are equal on average."
    more = max(0.0, wanted - len(behind))
    line = f"{name}: about {_round(more):,} more test {task.unit} like these ({_round(wanted):,} in all) would decide it"
    if spread is None:
        return f"{line}; runs with other seeds would show how much of it is the seeds'."
    seeds = power.seeds_to_decide(behind, spread.variance)
    if math.isinf(seeds):
        return f"{line} between these seeds; no number of seeds would on these {task.unit}."
    return f"{line} between these seeds; or {seeds:.0f} seeds of each on these {task.unit}."


def _round(count: float) -> int:
    """To two digits: more are not known."""
    digits = max(0, int(math.log10(count)) - 1) if count >= 1 else 0
    return math.ceil(count / 10**digits) * 10**digits
