"""The runs of a study → configurations with their means over seeds, and what differs between them."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ..scoring.names import LABELS
from ..scoring.uncertainty import Spread, holm, interval, paired_difference, spread_of

FINISHED, FAILED, STOPPED, MISSING = "finished", "failed", "stopped", "missing"

COSTS = (
    "trainable_parameters",
    "total_parameters",
    "training_seconds",
    "train_samples_per_second",
    "peak_memory_mib",
    "evaluation_samples_per_second",
    "adapter_mib",
)

SIZE = "max_train_samples"
NAMES = {
    SIZE: "training examples",
    "r": "rank",
    "num_train_epochs": "epochs",
    "num_virtual_tokens": "virtual tokens",
    "model_checkpoint": "checkpoint",
}
"""Names of axes in tables and plots; the others are named by their own name with spaces."""

MOST_PAIRS = 6
"""Up to this many configurations are compared pair by pair; more are compared with the best by validation."""


Study = Mapping[str, Any]
"""`name`, `description`, `task`, `metric` (the deciding one), `axes` (columns that a grid varies), `edges` (sentences) and
`provenance`."""

Scores = Mapping[str, Mapping[str, np.ndarray]]
"""Run id → metric → score of each example, 0 to 1, in one order of examples for all runs of a stage."""


def name_of(axis: str) -> str:
    """The name of an axis in tables and plots."""
    return NAMES.get(axis, axis.replace("_", " "))


def text_of(axis: str, value: object) -> str:
    """A value of an axis as text: 1e-3 for learning rates, 10,000 for counts, "all" for no limit, "-" for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "all" if axis.startswith("max_") else "-"
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return str(value)
    if axis == "learning_rate" and value > 0:
        power = math.floor(math.log10(value) + 1e-9)
        return f"{round(value / 10**power, 3):g}e{power}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


def short(axis: str, value: object) -> str:
    """A value of an axis as a part of a label: "lr 1e-3", "r 16", "2,000 examples"; empty for none."""
    text = text_of(axis, value)
    if axis == SIZE:
        return f"{text} examples"
    if text == "-" or isinstance(value, str):
        return text.strip("-")
    return f"{_SHORT.get(axis, name_of(axis))} {text}"


_SHORT = {"learning_rate": "lr", "r": "r"}


def tidy(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with every column that tables and figures read; figures that are missing or infinite are NaN."""
    runs = runs.reset_index(drop=True).copy()
    metric = study["metric"]
    for column, default in {
        "stage": "",
        "name": "",
        "technique": "",
        "checkpoint": "",
        "status": FINISHED,
    }.items():
        runs[column] = runs[column].fillna(default).astype(str) if column in runs else default
    for column in ("failure", "run_id"):
        runs[column] = [str(v) if isinstance(v, str) else "" for v in runs.get(column, [""] * len(runs))]
    runs["technique"] = runs["technique"].where(runs["technique"] != "", runs["name"])
    scores = [f"test_{m}" for m in dict.fromkeys((metric, *LABELS))]
    numbers = {
        "seed",
        "test_examples",
        f"best_validation_{metric}",
        f"test_{metric}_low",
        f"test_{metric}_high",
    }
    for column in sorted({*numbers, *scores, *COSTS}):
        values = pd.to_numeric(runs[column], errors="coerce") if column in runs else np.nan
        runs[column] = pd.Series(values, index=runs.index, dtype=float).replace([np.inf, -np.inf], np.nan)
    for axis in study["axes"]:
        values = runs[axis].tolist() if axis in runs else [None] * len(runs)
        plain = [", ".join(map(str, v)) if isinstance(v, list | tuple) else v for v in values]
        numeric = pd.to_numeric(pd.Series(plain, dtype=object), errors="coerce").astype(float)
        given = [v is not None and v == v for v in plain]
        whole = not any(
            g and math.isnan(n) or isinstance(v, bool) for g, n, v in zip(given, numeric, plain, strict=True)
        )
        runs[axis] = (
            numeric.to_numpy()
            if whole
            else pd.Series([v if g else None for v, g in zip(plain, given, strict=True)], dtype=object)
        )
    return runs


def varying(runs: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """The axes that take more than one value in these runs."""
    return [axis for axis in axes if runs[axis].nunique(dropna=False) > 1]


def configurations(study: Study, runs: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """One row for each configuration of a stage: runs that differ in their seed alone.

    runs: as `tidy` returns them. Columns: `stage`, `technique`, `checkpoint`, the axes, `label` (how it differs from the
    others of its stage), `run_ids` and `seeds` (of its finished runs), `planned` (the number of planned runs),
    `validation` and its lowest and highest seed, `test` with `low`, `high` and `method` ("seeds", "one seed" or ""),
    other `test_<metric>`, COSTS and `test_examples` as means, and, if the runs have it, whether it was `decided` against. Scores in percent; NaN if unknown. The rows have the order
    of the grid.
    """
    axes, metric = list(study["axes"]), study["metric"]
    runs = runs.assign(variant="")
    keys = ["stage", "technique", "checkpoint", *axes]
    # Runs of one seed that differ in their names alone are configurations of their own.
    if runs.duplicated([*keys, "seed"]).any():
        alike = (
            runs.duplicated([*keys, "seed"], keep=False)
            .groupby([runs[k] for k in keys], dropna=False)
            .transform("any")
        )
        runs["variant"] = runs["name"].where(alike & (runs["name"] != runs["technique"]), "")
    rows = []
    for _, group in runs.groupby([*keys, "variant"], dropna=False, sort=False):
        done = group[group["status"] == FINISHED].sort_values("seed", kind="stable")
        row = {key: group[key].iloc[0] for key in [*keys, "variant"]}
        row |= {"run_ids": list(done["run_id"]), "seeds": list(done["seed"]), "planned": len(group)}
        validation = done[f"best_validation_{metric}"]
        row |= {
            "validation": validation.mean(),
            "validation_low": validation.min(),
            "validation_high": validation.max(),
        }
        row |= {"test": done[f"test_{metric}"].mean(), "low": math.nan, "high": math.nan, "method": ""}
        if len(done) == 1 and done[f"test_{metric}_low"].notna().all():
            ends = {end: done[f"test_{metric}_{end}"].iloc[0] for end in ("low", "high")}
            row |= ends | {"method": "one seed"}
        others = [f"test_{name}" for name in LABELS if name != metric]
        row |= {column: done[column].mean() for column in [*others, *COSTS, "test_examples"]}
        if "decided" in runs:
            row["decided"] = bool(group["decided"].notna().any())
        rows.append(row)
    table = pd.DataFrame(rows)
    if len(table):
        table["label"] = ""
        for _, stage in table.groupby("stage", sort=False):
            table.loc[stage.index, "label"] = labels(stage, axes)
            each, spread = matrices(stage, scores, metric)
            for i, values in each.items():
                low, high = interval(values, spread)
                table.loc[i, ["test", "low", "high"]] = values.mean(), max(0.0, low), min(100.0, high)
                table.loc[i, "method"] = "seeds" if spread else "one seed"
    return table


def matrices(stage: pd.DataFrame, scores: Scores, metric: str) -> tuple[dict[int, np.ndarray], Spread | None]:
    """Index of a configuration → its scores (seeds, examples) in percent, and the spread between the seeds of all.

    Only configurations count whose finished runs all have finite scores, of the number of examples that most runs have.
    """
    each = {
        i: [np.asarray(scores.get(run, {}).get(metric, ()), dtype=float) for run in row["run_ids"]]
        for i, row in stage.iterrows()
    }
    lengths = [len(values) for runs in each.values() for values in runs if len(values)]
    usual = max(lengths, key=lengths.count, default=0)
    whole = {
        i: 100 * np.array(runs)
        for i, runs in each.items()
        if runs and usual and all(len(v) == usual and np.isfinite(v).all() for v in runs)
    }
    return whole, spread_of(list(whole.values()))


def best(table: pd.DataFrame) -> int | None:
    """Index of the best configuration: by validation, or by test if nothing was validated; None if none finished. One that was
    decided against is not, whatever the seeds that it has run scored."""
    if "decided" in table and not table["decided"].all():
        table = table[~table["decided"].astype(bool)]
    for column in ("validation", "test"):
        if len(table) and table[column].notna().any():
            return table[column].idxmax()
    return None


def decisive(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The rows of the stage that says what is best: the last one with test scores, at one number of training examples where
    there is such a stage."""
    stages = [stage for _, stage in table.groupby("stage", sort=False)]
    tested = [stage for stage in stages if stage["test"].notna().any()] or stages
    of_one_size = [stage for stage in tested if SIZE not in varying(stage, axes)]
    return (of_one_size or tested)[-1]


def against_best(study: Study, table: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """Paired tests of each configuration of a stage against the best by validation, on the scores of the same examples.

    Indexed as the table: `difference` in points (that configuration - the best) with `low`, `high`, `p`, and `p_holm`,
    corrected over these tests. Configurations without scores are left out; if the best has none, nothing is compared.
    """
    each, spread = matrices(table, scores, study["metric"])
    first = best(table)
    found = {i: paired_difference(each[i], each[first], spread) for i in each if first in each and i != first}
    tests = pd.DataFrame.from_dict(found, orient="index", columns=["difference", "low", "high", "p"])
    return tests.assign(p_holm=holm(tests["p"]))


def comparisons(study: Study, table: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """Paired tests between configurations of one stage, on the scores of the same examples: `a`, `b` (indices),
    `difference` in points (a - b, never negative) with `low`, `high`, `p`, and `p_holm`, corrected over all rows.

    table: one stage's rows of `configurations`. Up to MOST_PAIRS configurations are compared pair by pair. Of more, the
    techniques at the same number of training examples are compared if that number varies, else each with the best by
    validation.
    """
    each, spread = matrices(table, scores, study["metric"])
    rows = []
    for a, b in _pairs(table.loc[list(each)], study["axes"]):
        if each[a].mean() < each[b].mean():
            a, b = b, a
        rows.append({"a": a, "b": b, **paired_difference(each[a], each[b], spread)})
    tests = pd.DataFrame(rows, columns=["a", "b", "difference", "low", "high", "p"])
    tests["p_holm"] = holm(tests["p"])
    return tests


def labels(stage: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """How each configuration differs from the others; axes: those that the labels may name."""
    named = stage["technique"].nunique() > 1 or not varying(stage, axes)
    parts = [[technique] if named else [] for technique in stage["technique"]]
    if stage["checkpoint"].nunique() > 1:
        for part, name in zip(parts, stage["checkpoint"], strict=True):
            part.append(name.rstrip("/").rsplit("/", 1)[-1])
    for axis in varying(stage, axes):
        for part, value in zip(parts, stage[axis], strict=True):
            part.append(short(axis, value))
    for part, variant in zip(parts, stage["variant"], strict=True):
        if variant:
            part.append(variant)
    labels = [", ".join(filter(None, part)) for part in parts]
    return [label or name or "run" for label, name in zip(labels, stage["technique"], strict=True)]


def _pairs(table: pd.DataFrame, axes: Sequence[str]) -> list[tuple[int, int]]:
    if len(table) <= MOST_PAIRS:
        return list(combinations(table.index, 2))
    if SIZE in varying(table, axes):
        cells = table.groupby(["checkpoint", *axes], dropna=False, sort=False)
        within = [pair for _, cell in cells for pair in combinations(cell.index, 2)]
        if within:
            return within
    first = best(table)
    return [] if first is None else [(first, i) for i in table.index if i != first]
