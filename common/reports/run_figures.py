"""Figures of a run and of runs side by side: the loss, scores against size, confusions, slices."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter, PercentFormatter

from ..scoring.names import LABELS
from .drawing import BLUE, GREY, VERMILION, new_figure, place_labels, series, smoothed


def loss_curve(log_history: Sequence[Mapping[str, float]], metric: str = "f1") -> Figure:
    """Training loss by optimizer step, as measured and smoothed, and a validation score in percent after each epoch.

    log_history: the Trainer's: entries with `step` and `loss` or `eval_<metric>`. Values that are not finite leave a gap.
    """
    figure = new_figure(7.5, 4.2)
    axes = figure.add_subplot()
    steps, losses = series(log_history, "loss")
    if len(losses) > 20:
        axes.plot(steps, losses, color=BLUE, alpha=0.25, linewidth=1)
        axes.plot(steps, smoothed(losses), color=BLUE, linewidth=2, label="training loss, smoothed")
    else:
        axes.plot(steps, losses, ".-", color=BLUE, linewidth=1, label="training loss")
    axes.set_xlabel("optimizer step")
    axes.set_xlim(0, 1.03 * max((entry["step"] for entry in log_history if "step" in entry), default=1))
    axes.set_ylabel("training loss", color=BLUE)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", alpha=0.25)

    steps, scores = series(log_history, f"eval_{metric}")
    if len(scores):
        right = axes.twinx()
        right.spines["right"].set_visible(True)
        style = {"color": VERMILION, "clip_on": False}
        right.plot(
            steps, scores, "o--", linewidth=1, markersize=6, label=f"validation {LABELS[metric]}", **style
        )
        if np.isfinite(scores).any():
            best = int(np.nanargmax(scores))
            ring = {"markersize": 13, "markerfacecolor": "none", "markeredgewidth": 1.5}
            right.plot(steps[best], scores[best], "o", label="kept", **style, **ring)
        for step, score in zip(steps, scores, strict=True):
            if math.isfinite(score):
                right.annotate(
                    f"{score:.1f}",
                    (step, score),
                    (0, 9),
                    textcoords="offset points",
                    ha="center",
                    color=VERMILION,
                )
        right.set_ylabel(f"validation {LABELS[metric]}, %", color=VERMILION)
        right.set_ylim(0, 105)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def f1_against_parameters(table: pd.DataFrame, metric: str = "f1") -> Figure:
    """Test F1 (or another metric) in percent with its interval against trainable parameters, on a logarithmic axis; the
    best stands out.

    table: columns `label`, `trainable_parameters`, `test_f1`, `test_f1_low`, `test_f1_high`.
    """
    column = f"test_{metric}"
    figure = new_figure(7.5, 4.8)
    axes = figure.add_subplot()
    table = table.dropna(subset=["trainable_parameters", column])
    x, y = table["trainable_parameters"].to_numpy(float), table[column].to_numpy(float)
    low, high = (table[f"{column}_{end}"].fillna(table[column]).to_numpy(float) for end in ("low", "high"))
    for i in range(len(table)):
        best = y[i] == y.max()
        axes.errorbar(
            x[i],
            y[i],
            yerr=[[max(0.0, y[i] - low[i])], [max(0.0, high[i] - y[i])]],
            fmt="D" if best else "o",
            color=VERMILION if best else BLUE,
            markersize=7,
            capsize=3,
            linewidth=1.2,
            zorder=4 if best else 3,
        )
    axes.set_xscale("log")
    axes.set_xlabel("trainable parameters (logarithmic)")
    axes.set_ylabel(f"test {LABELS[metric]}, % (bars: 95% interval)")
    axes.grid(alpha=0.25)
    if len(table):
        # Whole decades: a narrow range would have no labelled tick.
        axes.set_xlim(10 ** math.floor(math.log10(x.min() / 1.5)), 10 ** math.ceil(math.log10(x.max() * 1.5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
        room = max(1.0, 0.12 * (high.max() - low.min()))
        axes.set_ylim(max(0.0, low.min() - room), min(100.0, high.max() + room))
        place_labels(figure, axes, list(table["label"]), x, y, low, high)
    return figure


LARGE_CELLS = 12
"""Classes up to which a cell of a confusion matrix has room for a count and its share."""

MOST_CLASSES = 50
"""Classes that a confusion matrix shows one by one."""


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Counts of each pair of label (downwards) and prediction (across); darker is the higher share of the label's row.

    counts: (classes, classes), rows are the labels. Up to LARGE_CELLS classes the shares are written too. Of more than
    MOST_CLASSES those that are confused most often are shown, and the rest together.
    """
    counts, names = most_confused(counts, [_shortened(name) for name in names])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    large = len(names) <= LARGE_CELLS
    longest = max(map(len, names))
    # Inches of a cell: two lines at the usual size, or three digits at the smallest that can be read.
    size = max(3.2, (1.1 if large else 0.27) * len(names))
    beside = 1.8 + (0.0 if large and longest <= 10 else 0.075 * longest)
    figure = new_figure(size + beside, size + beside - 1.2)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="cividis_r", vmin=0, vmax=1)
    if longest <= 10 and large:
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names, rotation=90, va="center")
    else:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=9 if large else 7)
        axes.set_yticks(range(len(names)), names, fontsize=9 if large else 7)
    if not large:
        edges = np.arange(len(names) + 1) - 0.5
        axes.hlines(edges, -0.5, len(names) - 0.5, color=GREY, linewidth=0.3, alpha=0.4)
        axes.vlines(edges, -0.5, len(names) - 0.5, color=GREY, linewidth=0.3, alpha=0.4)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    axes.spines[:].set_visible(False)
    for (i, j), share in np.ndenumerate(shares):
        if not large and not counts[i, j]:
            continue
        # Half way the map is as far from black as from white.
        style = {"color": "white" if share > 0.5 else "black"} | ({} if large else {"fontsize": 6})
        text = f"{counts[i, j]:,}\n{share:.1%}" if large else _short_number(int(counts[i, j]))
        axes.text(j, i, text, ha="center", va="center", **style)
    bar = figure.colorbar(image, ax=axes, shrink=0.8 if large else 0.3)
    bar.set_label("share of the label")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def most_confused(counts: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """A confusion matrix of the MOST_CLASSES classes with the most errors, in their order, and of the others as one."""
    if len(names) <= MOST_CLASSES:
        return counts, list(names)
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diagonal(counts)
    kept = np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES])
    # Class → its place in the figure.
    place = np.full(len(names), MOST_CLASSES)
    place[kept] = np.arange(MOST_CLASSES)
    grouped = np.zeros((MOST_CLASSES + 1,) * 2, dtype=counts.dtype)
    rows, columns = np.nonzero(counts)
    np.add.at(grouped, (place[rows], place[columns]), counts[rows, columns])
    return grouped, [*(names[i] for i in kept), f"{len(names) - MOST_CLASSES:,} others"]


def _shortened(name: str) -> str:
    flat = " ".join(name.split())
    return flat if len(flat) <= 30 else f"{flat[:29]}…"


def _short_number(count: int) -> str:
    """At most four characters: 999, 9.9k, 99k, 9.9M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if count >= size:
            value = count / size
            return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"
    return str(count)


def slice_scores(
    table: pd.DataFrame, score: str, unit: str, champion: tuple[str, pd.DataFrame] | None = None
) -> Figure:
    """The mean score of each slice with its 95% interval, grouped by dimension.

    table: as `slices.scores_by_slice` gives it; score, unit: as the axis names them. champion: (name, table of the same
    slices) to be set beside it.
    """
    headings, places, bottom = _places_of_slices(table)
    figure = new_figure(7.5, 1.5 + 0.27 * bottom)
    axes = figure.add_subplot()
    if champion is None:
        models = [("this run", table, BLUE, "o", 0.0)]
    else:
        models = [("this run", table, BLUE, "o", -0.17), (*champion, VERMILION, "D", 0.17)]
    for name, each, colour, marker, shift in models:
        at = [places[key] + shift for key in zip(each["dimension"], each["slice"], strict=True)]
        bars = [(each["score"] - each["low"]).clip(lower=0), (each["high"] - each["score"]).clip(lower=0)]
        style = {"fmt": marker, "color": colour, "markersize": 5, "capsize": 2.5, "linewidth": 1.2}
        axes.errorbar(each["score"], at, xerr=bars, label=name, clip_on=False, zorder=3, **style)
    names = [f"{row['slice']}  ({row['examples']:,})" for _, row in table.iterrows()]
    axes.set_yticks([places[key] for key in zip(table["dimension"], table["slice"], strict=True)], names)
    heading = {"ha": "right", "va": "center", "fontweight": "bold", "fontsize": 9}
    for dimension, at in headings.items():
        axes.text(-0.012, at, dimension, transform=axes.get_yaxis_transform(), **heading)
        axes.axhline(at, color=GREY, linewidth=0.6, alpha=0.35)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.set_ylim(bottom - 0.5, -0.7)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"test {score}, % (bars: 95% interval; in brackets: {unit})")
    if champion is not None:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def _places_of_slices(table: pd.DataFrame) -> tuple[dict[str, float], dict[tuple[str, str], float], float]:
    """(dimension → y of its heading, (dimension, slice) → y, y of the bottom), in lines from the top."""
    headings, places, y = {}, {}, 0.0
    for dimension, group in table.groupby("dimension", sort=False):
        headings[dimension] = y
        y += 0.9
        for name in group["slice"]:
            places[dimension, name] = y
            y += 1.0
        y += 0.4
    return headings, places, y
