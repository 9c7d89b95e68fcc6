"""Data → figures, without a display and without global state. Colours are those of Okabe and Ito (2008)."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter, PercentFormatter
from matplotlib.transforms import Bbox

from ..scoring.names import LABELS

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#666666"


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


def smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over a tenth of the series around each value, so that the curve does not lag behind."""
    return pd.Series(values).rolling(len(values) // 10 + 1, center=True, min_periods=1).mean().to_numpy()


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


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Counts and shares of each label's row, labels downwards, predictions across; darker is the higher share.

    counts: (classes, classes), rows are the labels.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(3.2, 1.1 * len(names))
    figure = new_figure(size + 1.8, size + 0.6)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="cividis_r", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names, rotation=90, va="center")
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    axes.spines[:].set_visible(False)
    for (i, j), share in np.ndenumerate(shares):
        # Half way the map is as far from black as from white.
        colour = "white" if share > 0.5 else "black"
        text = f"{counts[i, j]:,}\n{share:.1%}"
        axes.text(j, i, text, ha="center", va="center", color=colour)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the label")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, without a display."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def series(log_history, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the entries that have the value; NaN for those that are not finite."""
    entries = [(entry["step"], entry[name]) for entry in log_history if name in entry]
    steps, values = np.array(entries, dtype=float).reshape(-1, 2).T
    return steps, np.where(np.isfinite(values), values, np.nan)


def place_labels(figure, axes, labels, x, y, low, high) -> None:
    """Put each label at the nearest place beside its point where it covers no other label, point or bar; an empty label
    takes no room."""
    # Only a drawing settles where the axes lie; labels must not move them afterwards.
    figure.draw_without_rendering()
    renderer, frame = figure.canvas.get_renderer(), axes.get_window_extent()
    points = axes.transData.transform(np.column_stack([x, y]))
    bottoms, tops = (axes.transData.transform(np.column_stack([x, end]))[:, 1] for end in (low, high))
    taken = [
        Bbox([[px - 10, min(py - 10, bottom)], [px + 10, max(py + 10, top)]])
        for (px, py), bottom, top in zip(points, bottoms, tops, strict=True)
    ]
    for label, at, point in zip(labels, zip(x, y, strict=True), points, strict=True):
        if not label:
            continue
        offset = {"textcoords": "offset pixels"}
        text = axes.annotate(label, at, (0, 0), ha="center", va="center", fontsize=9, **offset)
        text.set_in_layout(False)
        size = text.get_window_extent(renderer)
        center, distance = _free_place(point, size.width + 6, size.height + 6, taken, frame)
        text.set_position(center - point)
        box = _box(center, size.width + 6, size.height + 6)
        taken.append(box)
        if distance > _DISTANCES[1]:
            edge = np.clip(point, box.min, box.max) - point
            line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", at, edge, arrowprops=line, **offset).set_in_layout(False)


_DISTANCES = (12, 20, 32, 48, 68, 92, 120, 152, 190, 240)
_DIRECTIONS = [math.radians(angle) for angle in (0, 180, 30, -30, 150, -150, 60, -60, 120, -120, 90, -90)]


def _free_place(point, width, height, taken, frame) -> tuple[np.ndarray, float]:
    """Centre of a box of this size near the point, in pixels, and its distance; to the right if all is taken."""
    for distance in _DISTANCES:
        for angle in _DIRECTIONS:
            direction = np.array([math.cos(angle), math.sin(angle)])
            center = point + direction * (distance + np.array([width, height]) / 2)
            box = _box(center, width, height)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                return center, distance
    return point + np.array([_DISTANCES[0] + width / 2, 0.0]), _DISTANCES[0]


def _box(center, width, height) -> Bbox:
    return Bbox.from_bounds(center[0] - width / 2, center[1] - height / 2, width, height)
