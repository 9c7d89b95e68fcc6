"""The tables of a study → figures of scores and costs.

`table` holds the rows of one stage that `configurations.configurations` returns; scores are in percent. Functions return
None if the data does not support their figure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, NullFormatter

from .configurations import name_of, text_of
from .drawing import COLOURS, GREY, VERMILION, dot, label_of, new_figure, place_labels

MOST_LABELS = 12


def time_per_step(table: pd.DataFrame, seconds: Mapping[str, float]) -> Figure | None:
    """Training time of an optimizer step for each configuration: bars are means, points are seeds.

    seconds: run id → seconds per step.
    """
    each = [[seconds[run] for run in runs if run in seconds] for runs in table["run_ids"]]
    rows = [(label, values) for label, values in zip(table["label"], each, strict=True) if values]
    if not rows:
        return None
    unit, factor = ("ms", 1e3) if max(max(values) for _, values in rows) < 1 else ("s", 1.0)
    figure, plot = _rows_of([label for label, _ in rows])
    for y, (_, values) in enumerate(rows):
        plot.barh(y, factor * np.mean(values), height=0.62, color=COLOURS[0], alpha=0.45)
        plot.plot(
            factor * np.array(values), [y] * len(values), "o", color=COLOURS[0], markersize=4, clip_on=False
        )
        plot.annotate(
            f"{factor * np.mean(values):#.3g}".rstrip("."),
            (factor * max(values), y),
            (7, 0),
            textcoords="offset points",
            va="center",
        )
    plot.set_xlim(0, 1.12 * factor * max(max(values) for _, values in rows))
    plot.set_xlabel(f"training time per optimizer step, {unit}")
    return figure


def points_per_mparams(table: pd.DataFrame, metric: str) -> Figure | None:
    """Points of the test score per million trainable parameters, on a logarithmic axis."""
    ratio = 1e6 * table["test"] / table["trainable_parameters"].where(table["trainable_parameters"] > 0)
    rows = [(label, value) for label, value in zip(table["label"], ratio, strict=True) if value > 0]
    if not rows:
        return None
    figure, plot = _rows_of([label for label, _ in rows])
    values = np.array([value for _, value in rows])
    for y, value in enumerate(values):
        plot.plot(value, y, "o", color=COLOURS[0], markersize=8)
        plot.annotate(
            f"{value:,.3g}" if value < 1000 else f"{value:,.0f}",
            (value, y),
            (9, 0),
            textcoords="offset points",
            va="center",
        )
    _log_decades(plot, values, "x")
    plot.set_xlabel(f"test {label_of(metric)}, points per million trained parameters (logarithmic)")
    return figure


def efficiency_tradeoff(table: pd.DataFrame, metric: str) -> Figure | None:
    """Test score with its interval against training time; a point's area and label show the peak memory."""
    table = table.dropna(subset=["test", "training_seconds"])
    if table.empty:
        return None
    x, unit = _in_a_fitting_unit(table["training_seconds"].to_numpy(float))
    y, memory = table["test"].to_numpy(float), table["peak_memory_mib"].to_numpy(float)
    low, high = (table[end].fillna(table["test"]).to_numpy(float) for end in ("low", "high"))
    figure = new_figure(7.5, 4.8)
    plot = figure.add_subplot()
    known = np.isfinite(memory).any()
    largest = np.nanmax(memory) if known else 1.0
    techniques = list(dict.fromkeys(table["technique"]))
    for i, technique in enumerate(table["technique"]):
        k = techniques.index(technique)
        size = math.sqrt(100 * memory[i] / largest) if np.isfinite(memory[i]) else 5
        bars = [[max(0.0, y[i] - low[i])], [max(0.0, high[i] - y[i])]]
        look: dict[str, Any] = {"markersize": max(3.0, size), "capsize": 3, "linewidth": 1, "alpha": 0.85}
        plot.errorbar(x[i], y[i], yerr=bars, linestyle="", **look, **dot(k))
    front = [not any((x < x[i]) & (y >= y[i]) | (x <= x[i]) & (y > y[i])) for i in range(len(x))]
    labels = [
        f"{name}{f', {_memory(m)}' if np.isfinite(m) else ''}" if len(x) <= MOST_LABELS or ahead else ""
        for name, m, ahead in zip(table["label"], memory, front, strict=True)
    ]
    note = "; ".join(["bars: 95% interval"] * bool((high > low).any()) + ["area: peak memory"] * bool(known))
    plot.set_xlabel(f"training time, {unit}")
    plot.set_ylabel(f"test {label_of(metric)}, %")
    plot.set_xlim(0, 1.25 * x.max())
    _score_limits(plot, low, high, 0.15)
    plot.grid(alpha=0.25)
    if "" in labels:
        note += "; labelled: none is both faster and better"
        handles = [
            Line2D([], [], linestyle="", label=technique, **dot(k)) for k, technique in enumerate(techniques)
        ]
        if len(techniques) > 1:
            figure.legend(
                handles=handles, loc="outside upper center", ncols=min(4, len(handles)), frameon=False
            )
    plot.set_title(note, fontsize=9, color=GREY)
    place_labels(figure, plot, labels, x, y, low, high)
    return figure


def against_axis(table: pd.DataFrame, axis: str, metric: str, tested: bool) -> Figure | None:
    """The score against an axis of numbers, a line for each technique: test scores with intervals, or validation scores
    with their lowest and highest seed. Each point is a mean over the other axes."""
    table = table[pd.to_numeric(table[axis], errors="coerce").notna()]
    columns = ("test", "low", "high") if tested else ("validation", "validation_low", "validation_high")
    table = table.dropna(subset=[columns[0]])
    if table[axis].nunique() < 2:
        return None
    figure = new_figure(7.5, 4.6)
    plot = figure.add_subplot()
    techniques = table.groupby(["technique", "checkpoint"], sort=False)
    values = table[axis].astype(float)
    logarithmic = values.min() > 0 and values.max() / values.min() >= 5
    span = (math.log(values.max() / values.min()) if logarithmic else values.max() - values.min()) or 1.0
    for k, ((technique, checkpoint), group) in enumerate(techniques):
        means = group.assign(at=group[axis].astype(float)).groupby("at")[list(columns)].mean()
        # Bars of techniques at the same place stand side by side.
        shift = (k - (len(techniques) - 1) / 2) * 0.012 * span
        x = means.index.to_numpy()
        moved = x * math.exp(shift) if logarithmic else x + shift
        label = technique if table["checkpoint"].nunique() == 1 else f"{technique}, {checkpoint}"
        _draw_line(plot, moved, means, label, k, ring=not tested)
    bottom, top = plot.get_ylim()
    plot.set_ylim(max(0.0, bottom), max(top, 1.0))
    _set_ticks(plot, axis, np.unique(values), logarithmic)
    what = (
        "bars: 95% interval"
        if tested
        else "bars: seeds; ring: best"
        if (table["validation_high"] > table["validation_low"]).any()
        else "ring: best"
    )
    plot.set_xlabel(name_of(axis) + (" (logarithmic)" if logarithmic else ""))
    plot.set_ylabel(f"{'test' if tested else 'validation'} {label_of(metric)}, % ({what})")
    plot.grid(alpha=0.25)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def _draw_line(plot: Axes, x: np.ndarray, table: pd.DataFrame, label: str, k: int, ring: bool) -> None:
    """Draw the k-th line with its bars. table: means, lower and upper ends, in its three columns. ring: mark the best."""
    mean, low, high = (table[column].to_numpy() for column in table)
    look = dot(k)
    bars = np.nan_to_num(np.clip([mean - low, high - mean], 0, None))
    plot.errorbar(x, mean, yerr=bars, label=label, capsize=3, **look)
    if ring:
        top = int(np.argmax(mean))
        plot.plot(
            x[top], mean[top], "o", markersize=14, markerfacecolor="none", markeredgecolor=look["color"]
        )


def _set_ticks(plot: Axes, axis: str, values: np.ndarray, logarithmic: bool) -> None:
    """A tick at each of a few values, or where matplotlib puts them, written as `text_of` writes the axis."""
    if logarithmic:
        plot.set_xscale("log")
        plot.xaxis.set_minor_formatter(NullFormatter())
        plot.xaxis.set_minor_locator(FixedLocator([]))
    if len(values) <= 9:
        plot.set_xticks(values, [text_of(axis, value) for value in values])
    else:
        plot.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text_of(axis, value)))


def heatmap(table: pd.DataFrame, a: str, b: str, metric: str) -> Figure | None:
    """Validation score by two axes, as a mean over everything else; the best cell is framed.

    `a` runs across, `b` upwards.
    """
    table = table.dropna(subset=["validation"])
    if table[a].nunique(dropna=False) < 2 or table[b].nunique(dropna=False) < 2:
        return None
    across, upwards = (ordered(table[axis]) for axis in (a, b))
    cells = np.full((len(upwards), len(across)), np.nan)
    for i, up in enumerate(upwards):
        for j, right in enumerate(across):
            cells[i, j] = table.loc[_equal(table[b], up) & _equal(table[a], right), "validation"].mean()
    figure = new_figure(max(4.6, 2.6 + 0.95 * len(across)), max(3.2, 1.5 + 0.62 * len(upwards)))
    plot = figure.add_subplot()
    plot.set_facecolor("#dddddd")
    low = float(np.nanmin(cells))
    image = plot.imshow(
        cells, cmap="cividis", origin="lower", aspect="auto", vmin=low, vmax=max(low + 1.0, np.nanmax(cells))
    )
    top = np.unravel_index(np.nanargmax(cells), cells.shape)
    for (i, j), value in np.ndenumerate(cells):
        if math.isnan(value):
            plot.text(j, i, "not run", ha="center", va="center", color=GREY, fontsize=8)
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18
        weight = "bold" if (i, j) == top else "normal"
        plot.text(
            j, i, f"{value:.1f}", ha="center", va="center", color="black" if light else "white", weight=weight
        )
    frame: dict[str, Any] = {
        "fill": False,
        "edgecolor": VERMILION,
        "linewidth": 3,
        "clip_on": False,
        "zorder": 5,
    }
    plot.add_patch(Rectangle((top[1] - 0.5, top[0] - 0.5), 1, 1, **frame))
    plot.set_xticks(range(len(across)), [text_of(a, value) for value in across])
    plot.set_yticks(range(len(upwards)), [text_of(b, value) for value in upwards])
    plot.set_xlabel(name_of(a))
    plot.set_ylabel(name_of(b))
    plot.set_title("framed: best; each cell is a mean over all else", fontsize=9, color=GREY)
    figure.colorbar(image, ax=plot, label=f"validation {label_of(metric)}, %")
    return figure


def _rows_of(labels: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure with a row for each label, the first at the top."""
    figure = new_figure(7.5 + 0.07 * max(0, max(map(len, labels)) - 24), 1.1 + 0.32 * max(3, len(labels)))
    plot = figure.add_subplot()
    plot.set_yticks(range(len(labels)), labels)
    plot.set_ylim(len(labels) - 0.5, -0.5)
    plot.grid(axis="x", alpha=0.25)
    plot.set_axisbelow(True)
    return figure, plot


def _log_decades(plot: Axes, values: np.ndarray, axis: str) -> None:
    """Set a logarithmic axis over whole decades, so that a narrow range also has labelled ticks."""
    low, high = math.floor(math.log10(values.min() / 1.3)), math.ceil(math.log10(values.max() * 2.5))
    getattr(plot, f"set_{axis}scale")("log")
    getattr(plot, f"set_{axis}lim")(10.0**low, 10.0**high)
    ticks = getattr(plot, f"{axis}axis")
    large = EngFormatter(sep="")
    ticks.set_major_formatter(FuncFormatter(lambda v, at: f"{v:g}" if v < 1 else large(v, at)))
    ticks.set_minor_formatter(NullFormatter())


def _score_limits(plot: Axes, low: np.ndarray, high: np.ndarray, room: float) -> None:
    room = max(1.0, room * (high.max() - low.min()))
    plot.set_ylim(max(0.0, low.min() - room), min(100.0 if high.max() < 100 else 102.0, high.max() + room))


def _in_a_fitting_unit(seconds: np.ndarray) -> tuple[np.ndarray, str]:
    """(times, their unit): hours or minutes where the longest time is at least two of them, else seconds."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds.max() >= 2 * size:
            return seconds / size, unit
    return seconds, "s"


def _memory(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def ordered(values: pd.Series) -> list:
    """The values that occur: numbers by size, other values in the order of the table, none last."""
    given = list(dict.fromkeys(values.dropna()))
    if pd.api.types.is_numeric_dtype(values):
        given = sorted(given)
    return given + [None] * bool(values.isna().any())


def _equal(values: pd.Series, value: object) -> pd.Series:
    return values.isna() if value is None else values == value
