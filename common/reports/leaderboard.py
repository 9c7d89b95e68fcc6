"""A study's leaderboard and learning curves as results of the documentation: the files that `result_tables` describes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from ..scoring.learning_curve import per_doubling
from ..scoring.names import LABELS
from ..scoring.uncertainty import shown_p
from . import pareto
from .configurations import SIZE, Scores, Study, against_best, best, decisive, labels, matrices, name_of
from .result_tables import cell

Result = dict[str, Any]
"""What a result's file holds."""


def leaderboard(study: Study, table: pd.DataFrame, scores: Scores) -> Result | None:
    """The stage that says what is best as a result: a row for each configuration, the best one by validation first, the others
    by test score. None if nothing was tested.

    table: as `configurations` gives it. Each row has the values of the axes, the number of seeds, scores with intervals over
    seeds and examples, the difference from the best with Holm's correction over all that are compared, what it costs, and
    whether it is on the Pareto front over all of these.
    """
    stage = decisive(table, study["axes"]) if len(table) else table
    stage = stage[stage["test"].notna()] if len(stage) else stage
    first = best(stage)
    if first is None:
        return None
    tests, beaten, named = against_best(study, stage, scores), pareto.behind(stage), _names(stage)
    order = stage["test"].sort_values(ascending=False, kind="stable").index
    rows = []
    for index in [first, *(i for i in order if i != first)]:
        row = stage.loc[index]
        found = _identity(study, row, named[index]) | _scores(study["metric"], row)
        if index == first:
            found["best"] = "best"
        elif index in tests.index:
            found |= {name: _rounded(tests.loc[index, name]) for name in ("difference", "low", "high")}
            found |= {name: _rounded(tests.loc[index, name], 4) for name in ("p", "p_holm")}
            found["p_holm_shown"] = shown_p(found["p_holm"])
        found |= {cost: _rounded(value, 2) for cost, value in pareto.values_of(row).items()}
        if row["total_parameters"] > 0 and "trainable_parameters" in found:
            share = 100 * row["trainable_parameters"] / row["total_parameters"]
            found["trainable_percent"] = float(f"{share:.3g}")
        found["front"] = "yes" if index not in beaten else f"behind {named[beaten[index]]}"
        rows.append(found)
    return _result(study, rows, _columns(study["metric"], study["axes"], _HELD))


def learning_curves(study: Study, table: pd.DataFrame, scores: Scores) -> Result | None:
    """Each technique at each number of training examples as a result, with its points per doubling. None if no stage varies
    that number."""
    rows: list[dict[str, Any]] = []
    for curve in curves(study, table, scores):
        for size, row in curve.rows:
            found = _identity(study, row, curve.name) | _scores(study["metric"], row)
            found[SIZE] = int(size)
            if curve.slope:
                found |= {f"doubling_{name}": _rounded(value) for name, value in curve.slope.items()}
            rows.append(found)
    return _result(study, rows, _columns(study["metric"], study["axes"], _CURVE)) if rows else None


class Curve(NamedTuple):
    """A technique at several numbers of training examples."""

    name: str
    rows: list[tuple[float, pd.Series]]
    """(number of training examples, its row of the table)"""
    slope: dict[str, float] | None
    """Points per doubling, with an interval."""


def curves(study: Study, table: pd.DataFrame, scores: Scores) -> list[Curve]:
    """The curves of the last stage that varies the number of training examples; [] if there is none.

    The slope needs scores of the same seeds and examples at every size.
    """
    stages = [stage for _, stage in table.groupby("stage", sort=False)] if len(table) else []
    of_sizes = [
        stage
        for stage in stages
        if SIZE in study["axes"] and stage[stage["test"].notna()][SIZE].nunique() > 1
    ]
    if not of_sizes:
        return []
    stage = of_sizes[-1]
    each, spread = matrices(stage, scores, study["metric"])
    axes = [axis for axis in study["axes"] if axis != SIZE]
    found = []
    groups = [
        group for _, group in stage.groupby(["technique", "checkpoint", *axes], dropna=False, sort=False)
    ]
    several = len(groups) > stage["technique"].nunique()
    firsts = stage.loc[[group.index[0] for group in groups]]
    names = labels(firsts, axes) if several else list(firsts["technique"])
    for name, group in zip(names, groups, strict=True):
        group = group[group["test"].notna() & group[SIZE].notna()].sort_values(SIZE)
        if group.empty:
            continue
        whole = [each.get(index) for index in group.index]
        alike = [matrix for matrix in whole if matrix is not None]
        even = len(alike) == len(whole) and len({matrix.shape for matrix in alike}) == 1
        slope = per_doubling(list(group[SIZE]), alike, spread) if even else None
        found.append(Curve(name, [(row[SIZE], row) for _, row in group.iterrows()], slope))
    return found


def _names(stage: pd.DataFrame) -> Mapping[int, str]:
    """Index → the technique's name, or the configuration's where several have one."""
    unique = stage["technique"].is_unique
    return dict(stage["technique" if unique else "label"].items())


def _identity(study: Study, row: pd.Series, name: str) -> dict[str, Any]:
    axes = {axis: _plain(row[axis]) for axis in study["axes"]}
    return {"technique": name} | {axis: value for axis, value in axes.items() if value is not None}


def _plain(value: Any) -> Any:
    """A value of an axis as JSON has it; None for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _scores(metric: str, row: pd.Series) -> dict[str, Any]:
    found: dict[str, Any] = {"seeds": len(row["run_ids"]), "validation": _rounded(row["validation"])}
    found[f"test_{metric}"] = _rounded(row["test"])
    found |= {f"test_{metric}_{end}": _rounded(row[end]) for end in ("low", "high")}
    for other in LABELS:
        if other != metric and not math.isnan(row[f"test_{other}"]):
            found[f"test_{other}"] = _rounded(row[f"test_{other}"])
    return {name: value for name, value in found.items() if value == value}


def _rounded(value: float, digits: int = 1) -> float:
    return round(float(value), digits)


_HELD = (
    ("difference", ["{difference:+.1f} [{low:+.1f}, {high:+.1f}]", "{best}"]),
    ("p, Holm", ["{p_holm_shown}"]),
    ("trained", ["{trainable_parameters:,.0f} ({trainable_percent:.3g}%)", "{trainable_parameters:,.0f}"]),
    ("time", ["{training_seconds!t}"]),
    ("memory MiB", ["{peak_memory_mib:,.0f}"]),
    ("test inputs/s", ["{evaluation_samples_per_second:.3g}"]),
    ("stored MiB", ["{adapter_mib:,.3g}"]),
    ("on the front", ["{front}"]),
)
_CURVE = (
    ("training examples", [f"{{{SIZE}:,}}"]),
    ("points per doubling", ["{doubling_slope:+.1f} [{doubling_low:+.1f}, {doubling_high:+.1f}]"]),
)


def _columns(
    metric: str, axes: Sequence[str], further: Sequence[tuple[str, list[str]]]
) -> list[tuple[str, list[str]]]:
    label = LABELS.get(metric, metric)
    named = [
        (name_of(axis), [f"{{{axis}!e}}" if axis == "learning_rate" else f"{{{axis}}}"])
        for axis in axes
        if axis != SIZE
    ]
    test = f"test_{metric}"
    others = [(f"test {LABELS[name]}", [f"{{test_{name}:.1f}}"]) for name in LABELS if name != metric]
    return [
        ("technique", ["{technique}"]),
        *named,
        ("seeds", ["{seeds}"]),
        (
            f"test {label} [95%]",
            [f"{{{test}:.1f}} [{{{test}_low:.1f}}, {{{test}_high:.1f}}]", f"{{{test}:.1f}}"],
        ),
        *others,
        *further,
    ]


def _result(
    study: Study, rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, list[str]]]
) -> Result:
    """A result with the columns that at least one of its rows has the fields of."""
    shown = [
        {
            "title": title,
            "align": "left" if i == 0 or title == "on the front" else "right",
            "format": formats[0] if len(formats) == 1 else formats,
        }
        for i, (title, formats) in enumerate(columns)
        if any(cell(row, formats) for row in rows)
    ]
    return {"provenance": dict(study["record"]), "rows": list(rows), "columns": shown}
