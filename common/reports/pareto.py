"""Which configurations are beaten in nothing: the Pareto front over the score and what a technique costs."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .configurations import text_of
from .drawing import GREY, dot, label_of, new_figure

COSTS = {
    "trainable_parameters": "trained parameters",
    "training_seconds": "training time, s",
    "peak_memory_mib": "peak memory, MiB",
    "evaluation_samples_per_second": "test inputs/s",
    "adapter_mib": "stored weights, MiB",
}
"""What a technique costs: column → title. Test inputs (windows or texts) a second, in batches, stand for latency; of them
more are better, of all others less."""

MORE_IS_BETTER = ("evaluation_samples_per_second",)

_LOGARITHMIC = ("trainable_parameters", "adapter_mib")


def known(table: pd.DataFrame) -> list[str]:
    """The costs that were measured for every tested configuration of a stage and are not the same for all."""
    tested = table[table["test"].notna()]
    return [
        cost for cost in COSTS if len(tested) and tested[cost].notna().all() and tested[cost].nunique() > 1
    ]


def dominators(table: pd.DataFrame, costs: Sequence[str]) -> dict[int, list[int]]:
    """Index of each tested configuration → those that are at least as good in score and in all these costs and better in one."""
    tested = table[table["test"].notna()]
    signs = [1.0, *(1.0 if cost in MORE_IS_BETTER else -1.0 for cost in costs)]
    values = tested[["test", *costs]].to_numpy(float) * signs
    return {
        index: [
            tested.index[j]
            for j in range(len(values))
            if (values[j] >= values[i]).all() and (values[j] > values[i]).any()
        ]
        for i, index in enumerate(tested.index)
    }


def front(table: pd.DataFrame, costs: Sequence[str]) -> set[int]:
    """Indices of the configurations that no other one dominates."""
    return {index for index, better in dominators(table, costs).items() if not better}


def behind(table: pd.DataFrame) -> dict[int, int]:
    """Index of each configuration that is not on the front over everything → the best-scoring one that dominates it."""
    return {
        index: max(better, key=lambda other: table.loc[other, "test"])
        for index, better in dominators(table, known(table)).items()
        if better
    }


def chart(table: pd.DataFrame, metric: str) -> Figure | None:
    """The test score against each cost; the line joins the front over the two. None for fewer than three configurations."""
    tested, costs = table[table["test"].notna()], known(table)
    if len(tested) < 3 or not costs:
        return None
    rows = math.ceil((len(costs) + 1) / 3)
    figure = new_figure(10, 0.4 + 3.3 * rows)
    look = {index: dot(k) for k, index in enumerate(tested.index)}
    for at, cost in enumerate(costs):
        plot = figure.add_subplot(rows, 3, at + 1)
        members = front(tested, [cost])
        for index, row in tested.iterrows():
            face = look[index]["color"] if index in members else "none"
            plot.plot(
                row[cost], row["test"], markersize=7, markerfacecolor=face, clip_on=False, **look[index]
            )
        line = tested.loc[sorted(members, key=lambda index: tested.loc[index, cost])]
        style: Literal["steps-pre", "steps-post"] = "steps-pre" if cost in MORE_IS_BETTER else "steps-post"
        plot.plot(line[cost], line["test"], drawstyle=style, color=GREY, linewidth=1, zorder=0)
        if cost in _LOGARITHMIC and (tested[cost] > 0).all():
            plot.set_xscale("log")
        else:
            plot.set_xlim(0, 1.06 * tested[cost].max())
        arrow = "more is better" if cost in MORE_IS_BETTER else "less is better"
        plot.set_xlabel(f"{COSTS[cost]} ({arrow})")
        plot.set_ylabel(f"test {label_of(metric)}, %")
        plot.grid(alpha=0.25)
    legend = figure.add_subplot(rows, 3, len(costs) + 1)
    legend.set_axis_off()
    handles = [
        Line2D([], [], linestyle="", label=label, **look[index]) for index, label in tested["label"].items()
    ]
    legend.legend(handles=handles, loc="center left", frameon=False, fontsize=8 if len(handles) < 16 else 6)
    return figure


def rows(table: pd.DataFrame, metric: str) -> tuple[list[str], list[list[str]], list[bool]]:
    """(header, rows, which are on the front over everything) of a table; an asterisk marks the front over the score and one cost."""
    tested = table[table["test"].notna()].sort_values("test", ascending=False, kind="stable")
    single, better = {cost: front(table, [cost]) for cost in known(table)}, behind(table)
    cells = []
    for index, row in tested.iterrows():
        costs = [
            text_of("", round(row[cost]) if row[cost] >= 100 else float(f"{row[cost]:.3g}"))
            + "*" * (index in single[cost])
            for cost in single
        ]
        beaten = table.loc[better[index], "label"] if index in better else ""
        cells.append([row["label"], f"{row['test']:.1f}", *costs, beaten])
    header = ["configuration", f"test {label_of(metric)}", *(COSTS[cost] for cost in single), "beaten by"]
    return header, cells, [index not in better for index in tested.index]


def values_of(row: pd.Series) -> dict[str, float]:
    """The costs of a configuration that were measured."""
    return {cost: float(row[cost]) for cost in COSTS if np.isfinite(row[cost])}
