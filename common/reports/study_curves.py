"""What happened while a study's runs trained → figures: scores and losses by step and epoch, gradients by layer.

`table` is what `configurations.configurations` gives. Functions give None where the data does not support their figure.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .configurations import best, short, varying
from .drawing import COLOURS, LINES, MARKERS, label_of, new_figure, series, smoothed

MOST_SERIES = len(COLOURS)
MOST_PANELS = 6

Histories = Mapping[str, Sequence[Mapping[str, float]]]


def series_of(table: pd.DataFrame, axes: Sequence[str]) -> pd.Series:
    """Which line each configuration belongs to: its own, if a figure can tell that many apart; else its technique's; else,
    for one technique, that of the axis that tells most apart."""
    if table["stage"].nunique() == 1 and len(table) <= MOST_SERIES:
        return table["label"]
    if table["technique"].nunique() > 1:
        return table["technique"]
    told = [axis for axis in varying(table, axes) if table[axis].nunique(dropna=False) <= MOST_SERIES]
    if not told:
        return table["technique"]
    # Among equals the one that moves the score most.
    means = {axis: table.groupby(axis, dropna=False)["validation"].mean() for axis in told}
    axis = max(told, key=lambda axis: np.nan_to_num(means[axis].max() - means[axis].min()))
    return table[axis].map(lambda value: f"{short(axis, value) or 'none'}")


def accuracy_curves(
    table: pd.DataFrame, axes: Sequence[str], histories: Histories, metric: str
) -> Figure | None:
    """Validation score by epoch; see `_curves` for which lines are drawn."""
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


def gradient_flow(records: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure | None:
    """Gradient norm of each layer, the deepest at the top, by optimizer step; one panel for each of the named runs.

    records: name → entries of `step` and the norm of each layer by its name. One scale of colours, logarithmic, for all.
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
    table: pd.DataFrame, axes: Sequence[str], gradients: Mapping[str, Sequence[Mapping]]
) -> dict[str, Sequence]:
    """What `gradient_flow` draws of a study: a run of every configuration, or of the best of each series of them."""
    table = table.assign(series=series_of(table, axes)) if len(table) else table
    recorded = {
        i: next((run for run in row["run_ids"] if gradients.get(run)), None) for i, row in table.iterrows()
    }
    table = table[[recorded[i] is not None for i in table.index]]
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


def _curves(table, axes, histories, panels, column, label, columns) -> Figure | None:
    """Thick: each series' best configuration, mean over its seeds; band: its seeds; thin: the series' other runs."""
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
    order = list(dict.fromkeys(named))
    columns = min(len(panels), max(columns, 2) if len(panels) > 1 else 1)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(7.5 if columns == 1 else 10, 0.7 + 3.7 * rows)
    several = len({stage for stage, _, _ in panels}) > 1
    highest = []
    for i, (stage, x, x_label) in enumerate(panels):
        plot = figure.add_subplot(rows, columns, i + 1)
        lines = drawn[stage, x]
        for name in order:
            mine = table[(named == name) & (table["stage"] == stage) & table.index.isin(lines)]
            if mine.empty:
                continue
            k = order.index(name)
            style = {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[k // len(COLOURS) % len(LINES)]}
            first = best(mine) if best(mine) is not None else mine.index[0]
            for other in mine.index:
                runs = lines[other]
                if other != first:
                    for line in runs:
                        plot.plot(*_smooth(line, column), linewidth=0.8, alpha=0.4, **style)
                    continue
                seeds = pd.concat(runs, axis=1)
                at, mean = _smooth(seeds.mean(axis=1), column)
                marker = MARKERS[k % len(MARKERS)] if column != "loss" or len(at) < 3 else ""
                plot.plot(at, mean, linewidth=2, marker=marker, markersize=5, **style)
                highest.append((np.median(mean), mean.max()))
                if len(runs) > 1:
                    ends = [_smooth(seeds.agg(end, axis=1), column)[1] for end in ("min", "max")]
                    plot.fill_between(at, *ends, color=style["color"], alpha=0.15, linewidth=0)
        plot.set_xlabel(x_label)
        plot.set_ylabel(label)
        plot.grid(alpha=0.25)
        # A single point, or a score that stays at 0, would have no scale of its own.
        if column != "loss":
            low, high = plot.get_ylim()
            plot.set_ylim(max(0.0, low), max(high, 1.0))
        plot.set_xlim(0, 1.04 * max(line.get_xdata().max() for line in plot.lines))
        if column != "loss" and plot.get_xlim()[1] > 1.5:
            plot.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if x == "step":
            plot.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        if several:
            plot.set_title(stage, fontsize=10)
    if column == "loss":
        # Neither a run that diverges nor the first steps may flatten the others.
        usual, ever = np.median(highest, axis=0)[0], np.max(highest, axis=0)[1]
        for plot in figure.axes:
            plot.set_ylim(0, 1.1 * min(ever, 5 * usual))
    seen = [name for name in order if any(named[i] == name for lines in drawn.values() for i in lines)]
    handles = [
        Line2D([], [], linewidth=2, label=name, color=COLOURS[k % len(COLOURS)], linestyle=LINES[k // len(COLOURS) % len(LINES)],
               marker=MARKERS[k % len(MARKERS)] if column != "loss" else "")
        for name in seen
        for k in [order.index(name)]
    ]  # fmt: skip
    fitting = max(1, min(4, 90 // (max(map(len, seen)) + 8)))
    lines_of_legend = math.ceil(len(seen) / fitting)
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=math.ceil(len(seen) / lines_of_legend),
        frameon=False,
    )
    return figure


def _lines(table: pd.DataFrame, histories: Histories, column: str, x: str) -> dict[int, list[pd.Series]]:
    """Index of a configuration → for each of its runs the values, by step or epoch; those that are not finite are gone."""
    found = {}
    for i, row in table.iterrows():
        runs = []
        for run in row["run_ids"]:
            entries = [e for e in histories.get(run, ()) if column in e and x in e]
            _, values = series([{"step": 0} | e for e in entries], column)
            line = pd.Series(values, index=[round(float(e[x]), 6) for e in entries]).dropna()
            if len(line):
                runs.append(line[~line.index.duplicated(keep="last")].sort_index())
        if runs:
            found[i] = runs
    return found


def _smooth(line: pd.Series, column: str) -> tuple[np.ndarray, np.ndarray]:
    values = line.to_numpy(float)
    return line.index.to_numpy(), smoothed(values) if column == "loss" and len(values) > 20 else values


def _layers(entries) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names of the layers, steps, norms (layers, steps); NaN where there is none or none that is finite)."""
    layers = list(dict.fromkeys(name for entry in entries for name in entry if name != "step"))
    entries = sorted({entry["step"]: entry for entry in entries}.values(), key=lambda entry: entry["step"])
    cells = np.array(
        [[float(entry.get(layer, math.nan)) for entry in entries] for layer in layers], dtype=float
    )
    cells = np.where(np.isfinite(cells), cells, 0.0).reshape(len(layers), len(entries))
    return layers, np.array([float(entry["step"]) for entry in entries]), cells
