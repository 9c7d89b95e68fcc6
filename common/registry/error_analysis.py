"""Where a run is wrong, as files: scores by slice, the worst examples, and with which other runs it errs together."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ..reports.run_figures import BLUE, GREY, VERMILION
from ..reports.study_curves import new_figure
from ..reports.text_tables import to_markdown
from ..scoring.names import LABELS
from ..scoring.slices import agreement, scores_by_slice, worst
from ..tasks.interface import Task

FOLDER = "error_analysis"


def write(
    folder: Path,
    rows: Sequence[Mapping],
    examples: Mapping[str, Mapping],
    others: Mapping[str, Sequence[Mapping]],
    task: Task,
    champion: tuple[str, Sequence[Mapping]] | None = None,
) -> None:
    """Write slices.csv, slices.png, worst.json, agreement.csv and agreement.md into a folder.

    rows: of the run's predictions/test.json; examples: the test data by id, without which nothing is known of slices.
    others: name of another run → its rows on the same examples. champion: (name, rows) of what the figure sets beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tested = [examples[row["id"]] for row in rows] if all(row["id"] in examples for row in rows) else None
    if tested is not None:
        table = scores_by_slice(tested, [row[task.metric] for row in rows], task.slices)
        table.to_csv(folder / "slices.csv", index=False, float_format="%.4f")
        beside = None
        if champion is not None and [row["id"] for row in champion[1]] == [row["id"] for row in rows]:
            beside = (
                champion[0],
                scores_by_slice(tested, [row[task.metric] for row in champion[1]], task.slices),
            )
        figure = slice_figure(table, LABELS[task.metric], task.unit, beside)
        figure.savefig(folder / "slices.png")
    errors = worst(tested or [{}] * len(rows), rows, task.metric, task.confidence)
    text = json.dumps(errors, indent=1, ensure_ascii=False)
    (folder / "worst.json").write_text(text + "\n", encoding="utf-8")
    shared = confusions(rows, others, task)
    shared.to_csv(folder / "agreement.csv", index=False, float_format="%.2f")
    (folder / "agreement.md").write_text(_told(shared, task), encoding="utf-8")


def confusions(rows: Sequence[Mapping], others: Mapping[str, Sequence[Mapping]], task: Task) -> pd.DataFrame:
    """How often a run and each other one are right on the same examples: `run`, the counts of `slices.agreement`, and
    `same_answer` in percent. Runs that were tested on other examples are left out.

    Right: the whole answer, or the label.
    """
    right, found = task.metrics[-1], []
    for name, theirs in others.items():
        by_id = {row["id"]: row for row in theirs}
        if by_id.keys() != {row["id"] for row in rows}:
            continue
        pairs = [(row, by_id[row["id"]]) for row in rows]
        counts = agreement([own[right] for own, _ in pairs], [their[right] for _, their in pairs])
        same = sum(own["prediction"] == their["prediction"] for own, their in pairs)
        found.append({"run": name, **counts, "same_answer": 100 * same / len(pairs)})
    columns = ["run", "both", "only_first", "only_second", "neither", "same_answer"]
    return pd.DataFrame(found, columns=columns)


def _told(shared: pd.DataFrame, task: Task) -> str:
    if shared.empty:
        return f"No other run was tested on the same {task.unit}.\n"
    shown = shared.rename(
        columns={
            "run": "other run",
            "both": "both right",
            "only_first": "only this run",
            "only_second": "only the other",
            "neither": "neither",
            "same_answer": "same answer",
        }
    )
    shown["same answer"] = [f"{value:.1f}%" for value in shared["same_answer"]]
    counts = shown.columns[1:5]
    shown[counts] = shown[counts].map(lambda n: f"{n:,}")
    total = int(shared.iloc[0][["both", "only_first", "only_second", "neither"]].sum())
    return (
        f"This run beside others, on the same {total:,} test {task.unit}; right means {task.right}.\n\n"
        + to_markdown(shown)
    )


def slice_figure(
    table: pd.DataFrame, score: str, unit: str, champion: tuple[str, pd.DataFrame] | None = None
) -> Figure:
    """The mean score of each slice with its 95% interval, grouped by dimension.

    table: as `slices.scores_by_slice` gives it; score, unit: as the axis names them. champion: (name, table of the same
    slices) to be set beside it.
    """
    groups = list(table.groupby("dimension", sort=False))
    places, ticks, y = {}, [], 0.0
    heads = []
    for dimension, group in groups:
        heads.append((y, dimension))
        y += 0.9
        for _, row in group.iterrows():
            places[row["dimension"], row["slice"]] = y
            ticks.append((y, f"{row['slice']}  ({row['examples']:,})"))
            y += 1.0
        y += 0.4
    figure = new_figure(7.5, 1.5 + 0.27 * y)
    axes = figure.add_subplot()
    series = [("this run", table, BLUE, "o", 0.0)]
    if champion is not None:
        series = [
            ("this run", table, BLUE, "o", -0.17),
            (champion[0], champion[1], VERMILION, "D", 0.17),
        ]
    for name, each, colour, marker, shift in series:
        at = [places[key] + shift for key in zip(each["dimension"], each["slice"], strict=True)]
        bars = [(each["score"] - each["low"]).clip(lower=0), (each["high"] - each["score"]).clip(lower=0)]
        axes.errorbar(
            each["score"],
            at,
            xerr=bars,
            fmt=marker,
            color=colour,
            markersize=5,
            capsize=2.5,
            linewidth=1.2,
            label=name,
            clip_on=False,
            zorder=3,
        )
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
    for at, dimension in heads:
        axes.text(
            -0.012,
            at,
            dimension,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontweight="bold",
            fontsize=9,
        )
        axes.axhline(at, color=GREY, linewidth=0.6, alpha=0.35)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.set_ylim(y - 0.5, -0.7)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"test {score}, % (bars: 95% interval; in brackets: {unit})")
    if champion is not None:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
