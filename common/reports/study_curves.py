"""The records of a study's trainings → figures: scores and losses by step and epoch, gradients by layer.

`table` is the result of `configurations.configurations`. Functions return None if the data does not support their figure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .configurations import best, short, varying
from .drawing import COLOURS, LINES, dot, label_of, new_figure, series, smoothed

MOST_SERIES = len(COLOURS)
MOST_PANELS = 6

Histories = Mapping[str, Sequence[Mapping[str, float]]]
"""Run id → entries of `step` and numbers by name: the Trainer's log history, or the gradient norm of each layer."""

Lines = dict[int, list[pd.Series]]
"""Index of a configuration → the line of each of its runs."""


def series_of(table: pd.DataFrame, axes: Sequence[str]) -> pd.Series:
    """The line that each configuration belongs to: its own, if a figure can show that many; else its technique's; with a
    single technique, that of its value on the axis that changes the score most."""
    if table["stage"].nunique() == 1 and len(table) <= MOST_SERIES:
        return table["label"]
    if table["technique"].nunique() > 1:
        return table["technique"]
    shown = [axis for axis in varying(table, axes) if table[axis].nunique(dropna=False) <= MOST_SERIES]
    if not shown:
        return table["technique"]
    means = {axis: table.groupby(axis, dropna=False)["validation"].mean() for axis in shown}
    axis = max(shown, key=lambda axis: np.nan_to_num(means[axis].max() - means[axis].min()))
    return table[axis].map(lambda value: f"{short(axis, value) or 'none'}")


def accuracy_curves(
    table: pd.DataFrame, axes: Sequence[str], histories: Histories, metric: str
) -> Figure | None:
    """Validation score by epoch; `_curves` describes the lines."""
    panels = [(stage, "epoch", "epoch") for stage in dict.fromkeys(table["stage"])]
    return _curves(table, axes, histories, panels, f"eval_{metric}", f"validation {label_of(metric)}, %", 1)


def loss_curves(table: pd.DataFrame, axes: Sequence[str], histories: Histories) -> Figure | None:
    """Training loss, smoothed, by optimizer step and by epoch."""
    panels = [
        (stage, x, name)
        for stage in dict.fromkeys(table["stage"])
        for x, name in (("step", "optimizer step"), ("epoch", "epoch"))
    ]
    return _curves(table, axes, histories, panels, "loss", "training loss", 2)


def gradient_flow(records: Histories) -> Figure | None:
    """Gradient norm of each layer, the deepest at the top, by optimizer step; one panel for each run.

    records: name → entries of `step` and the norm of each layer by its name. All panels share one logarithmic scale of colours.
    """
    records = {name: entries for name, entries in records.items() if entries}
    grids = {name: _layers(entries) for name, entries in records.items()}
    positive = np.concatenate([cells[cells > 0] for _, _, cells in grids.values()]) if grids else np.array([])
    if not len(positive):
        return None
    columns = min(len(grids), 2)
    lines = math.ceil(len(grids) / columns)
    tallest = max(len(layers) for layers, _, _ in grids.values())
    figure = new_figure(7.5 if columns == 1 else 10, 1.0 + lines * (1.0 + 0.24 * max(5, tallest)))
    low, high = positive.min(), positive.max()
    norm, plots = LogNorm(low, high if high > low else 10 * low), []
    for i, (name, (layers, steps, cells)) in enumerate(grids.items()):
        plot = figure.add_subplot(lines, columns, i + 1)
        plot.set_facecolor("#dddddd")
        half = np.diff(steps) / 2 if len(steps) > 1 else np.array([0.5])
        edges = np.concatenate(
            [[steps[0] - half[0]], steps[:-1] + half[: len(steps) - 1], [steps[-1] + half[-1]]]
        )
        image = plot.pcolormesh(
            edges,
            np.arange(len(layers) + 1) - 0.5,
            np.ma.masked_less_equal(cells, 0),
            cmap="viridis",
            norm=norm,
        )
        plot.set_yticks(range(len(layers)), layers, fontsize=8)
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        plot.set_xlabel("optimizer step")
        if len(grids) > 1:
            plot.set_title(name, fontsize=9)
        plots.append(plot)
    figure.colorbar(image, ax=plots, label="gradient norm before clipping (logarithmic)")
    return figure


def flow_of_best(
    table: pd.DataFrame, axes: Sequence[str], gradients: Histories
) -> dict[str, Sequence[Mapping[str, float]]]:
    """The records that `gradient_flow` draws: of one run of every configuration, or of the best configuration of each series."""
    table = table.assign(series=series_of(table, axes)) if len(table) else table
    recorded = {
        i: run
        for i, row in table.iterrows()
        if (run := next((run for run in row["run_ids"] if gradients.get(run)), None)) is not None
    }
    table = table[table.index.isin(recorded)]
    if len(table) > MOST_PANELS:
        chosen = [
            best(group) if best(group) is not None else group.index[0]
            for _, group in table.groupby("series", sort=False)
        ]
        table = table.loc[chosen[:MOST_PANELS]]
    several = table["stage"].nunique() > 1 if len(table) else False
    return {
        f"{row['stage']}: {row['label']}" if several else row["label"]: gradients[recorded[i]]
        for i, row in table.iterrows()
    }


def _curves(
    table: pd.DataFrame,
    axes: Sequence[str],
    histories: Histories,
    panels: Sequence[tuple[str, str, str]],
    column: str,
    label: str,
    columns: int,
) -> Figure | None:
    """Thick: each series' best configuration, mean over its seeds; band: its seeds; thin: the series' other runs.

    panels: (stage, column of x, its label) of each. columns: panels in a row, where there are several.
    """
    if table.empty:
        return None
    drawn = {
        (stage, x): lines
        for stage, x, _ in panels
        if (lines := _lines(table[table["stage"] == stage], histories, column, x))
    }
    panels = [panel for panel in panels if panel[:2] in drawn]
    if not panels:
        return None
    named = series_of(table, axes)
    names = list(dict.fromkeys(named))
    columns = min(len(panels), max(columns, 2) if len(panels) > 1 else 1)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(7.5 if columns == 1 else 10, 0.7 + 3.7 * rows)
    several = len({stage for stage, _, _ in panels}) > 1
    heights = []
    for i, (stage, x, x_label) in enumerate(panels):
        plot = figure.add_subplot(rows, columns, i + 1)
        lines = drawn[stage, x]
        for k, name in enumerate(names):
            mine = table[(named == name) & (table["stage"] == stage) & table.index.isin(lines)]
            if not mine.empty:
                heights.append(_draw_series(plot, mine, lines, column, k))
        plot.set_xlabel(x_label)
        plot.set_ylabel(label)
        plot.grid(alpha=0.25)
        _set_scale(plot, column, x)
        if several:
            plot.set_title(stage, fontsize=10)
    if column == "loss":
        # Neither a diverging run nor the first steps may flatten the other lines.
        usual, ever = np.median(heights, axis=0)[0], np.max(heights, axis=0)[1]
        for plot in figure.axes:
            plot.set_ylim(0, 1.1 * min(ever, 5 * usual))
    seen = {named[i] for lines in drawn.values() for i in lines}
    _add_legend(figure, {k: name for k, name in enumerate(names) if name in seen}, column)
    return figure


def _draw_series(plot: Axes, table: pd.DataFrame, lines: Lines, column: str, k: int) -> tuple[float, float]:
    """Draw the configurations of the k-th series; (median, maximum) of its thick line. lines: as `_lines` gives them."""
    first = best(table) if best(table) is not None else table.index[0]
    style = _style(k)
    for other in table.index:
        if other != first:
            for line in lines[other]:
                plot.plot(*_smooth(line, column), linewidth=0.8, alpha=0.4, **style)
            continue
        seeds = pd.concat(lines[other], axis=1)
        at, mean = _smooth(seeds.mean(axis=1), column)
        marker = _marker(k) if column != "loss" or len(at) < 3 else ""
        plot.plot(at, mean, linewidth=2, marker=marker, markersize=5, **style)
        height = float(np.median(mean)), float(mean.max())
        if len(lines[other]) > 1:
            low, high = (_smooth(seeds.agg(end, axis=1), column)[1] for end in ("min", "max"))
            plot.fill_between(at, low, high, color=style["color"], alpha=0.15, linewidth=0)
    return height


def _set_scale(plot: Axes, column: str, x: str) -> None:
    """Limits and ticks of a panel whose lines are drawn."""
    # A single point, or a score that stays at 0, would have no scale of its own.
    if column != "loss":
        low, high = plot.get_ylim()
        plot.set_ylim(max(0.0, low), max(high, 1.0))
    plot.set_xlim(0, 1.04 * max(np.max(line.get_xdata()) for line in plot.lines))
    if column != "loss" and plot.get_xlim()[1] > 1.5:
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if x == "step":
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def _add_legend(figure: Figure, names: Mapping[int, str], column: str) -> None:
    """A legend above the panels. names: those of the series that are drawn, by their number."""
    handles = [
        Line2D([], [], linewidth=2, label=name, marker=_marker(k) if column != "loss" else "", **_style(k))
        for k, name in names.items()
    ]
    fitting = max(1, min(4, 90 // (max(map(len, names.values())) + 8)))
    rows = math.ceil(len(names) / fitting)
    figure.legend(
        handles=handles, loc="outside upper center", ncols=math.ceil(len(names) / rows), frameon=False
    )


def _style(k: int) -> dict[str, Any]:
    return {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[k // len(COLOURS) % len(LINES)]}


def _marker(k: int) -> str:
    return dot(k)["marker"]


def _lines(table: pd.DataFrame, histories: Histories, column: str, x: str) -> Lines:
    """Index of a configuration → for each of its runs the values, by step or epoch; values that are not finite are left out."""
    found: Lines = {}
    for i, row in table.iterrows():
        runs = []
        for run in row["run_ids"]:
            entries = [e for e in histories.get(run, ()) if column in e and x in e]
            _, values = series([{"step": 0, **e} for e in entries], column)
            line = pd.Series(values, index=[round(float(e[x]), 6) for e in entries]).dropna()
            if len(line):
                runs.append(line[~line.index.duplicated(keep="last")].sort_index())
        if runs:
            found[i] = runs
    return found


def _smooth(line: pd.Series, column: str) -> tuple[np.ndarray, np.ndarray]:
    values = line.to_numpy(float)
    return line.index.to_numpy(), smoothed(values) if column == "loss" and len(values) > 20 else values


def _layers(entries: Sequence[Mapping[str, float]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names of the layers, steps, norms (layers, steps); 0 where a norm is missing or not finite)."""
    layers = list(dict.fromkeys(name for entry in entries for name in entry if name != "step"))
    entries = sorted({entry["step"]: entry for entry in entries}.values(), key=lambda entry: entry["step"])
    cells = np.array(
        [[float(entry.get(layer, math.nan)) for entry in entries] for layer in layers], dtype=float
    )
    cells = np.where(np.isfinite(cells), cells, 0.0).reshape(len(layers), len(entries))
    return layers, np.array([float(entry["step"]) for entry in entries]), cells
