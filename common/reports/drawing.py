"""Helpers for all figures: an empty figure without a display or global state, colours, series of numbers, places of labels.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ..scoring.names import LABELS

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#666666"

COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, except for yellow, which is too faint on white."""
MARKERS = "osD^vPX"
LINES = ("-", "--", "-.", (0, (1, 1)))


def dot(k: int) -> dict[str, Any]:
    """Colour and marker of the k-th of several points; the first 49 pairs differ."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": MARKERS[(k + k // len(COLOURS)) % len(MARKERS)],
    }


def label_of(metric: str) -> str:
    """The name of a score on an axis."""
    return LABELS.get(metric, metric.replace("_", " "))


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of this size in inches, without a display."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def series(log_history: Iterable[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the entries that have the value; NaN for those that are not finite."""
    entries = [(entry["step"], entry[name]) for entry in log_history if name in entry]
    steps, values = np.array(entries, dtype=float).reshape(-1, 2).T
    return steps, np.where(np.isfinite(values), values, np.nan)


def smoothed(values: np.ndarray) -> np.ndarray:
    """The mean of a tenth of the series around each value, so that the curve does not lag behind."""
    return pd.Series(values).rolling(len(values) // 10 + 1, center=True, min_periods=1).mean().to_numpy()


def place_labels(
    figure: Figure,
    axes: Axes,
    labels: Sequence[str],
    x: np.ndarray,
    y: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> None:
    """Put each label at the nearest place beside its point where it covers no other label, point or bar. Empty labels are
    skipped."""
    # Drawing decides where the axes lie; labels must not move them afterwards.
    figure.draw_without_rendering()
    canvas: Any = figure.canvas
    renderer, frame = canvas.get_renderer(), axes.get_window_extent()
    points = axes.transData.transform(np.column_stack([x, y]))
    bottoms, tops = (axes.transData.transform(np.column_stack([x, end]))[:, 1] for end in (low, high))
    taken = [
        Bbox([[px - 10, min(py - 10, bottom)], [px + 10, max(py + 10, top)]])
        for (px, py), bottom, top in zip(points, bottoms, tops, strict=True)
    ]
    for label, at, point in zip(labels, zip(x, y, strict=True), points, strict=True):
        if not label:
            continue
        offset: dict[str, Any] = {"textcoords": "offset pixels"}
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


def _free_place(
    point: np.ndarray, width: float, height: float, taken: Sequence[Bbox], frame: Bbox
) -> tuple[np.ndarray, float]:
    """Centre of a box of this size near the point, in pixels, and its distance; to the right if no place is free."""
    for distance in _DISTANCES:
        for angle in _DIRECTIONS:
            direction = np.array([math.cos(angle), math.sin(angle)])
            center = point + direction * (distance + np.array([width, height]) / 2)
            box = _box(center, width, height)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                return center, distance
    return point + np.array([_DISTANCES[0] + width / 2, 0.0]), _DISTANCES[0]


def _box(center: np.ndarray, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(center[0] - width / 2, center[1] - height / 2, width, height)
