"""Figures of a model's confidence: reliability before and after calibration, risk against coverage."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..scoring.calibration import Bin
from .drawing import BLUE, GREY, VERMILION, new_figure


def reliability_diagram(bins: Mapping[str, Sequence[Bin]], unit: str) -> Figure:
    """The share of right answers against the mean confidence of bins; on the diagonal a confidence is true.

    bins: name, such as "calibrated (ECE 2.1%)" → its bins; at most two, the first one drawn fainter. Below, how the
    confidences are spread: bins of equal mass, so that dense marks are many examples.
    """
    figure = new_figure(5.2, 5.2)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    for (name, each), colour, marker in zip(bins.items(), (VERMILION, BLUE), "os", strict=False):
        x, y = [b.confidence for b in each], [b.right for b in each]
        axes.plot(x, y, f"{marker}-", color=colour, linewidth=1.2, markersize=5, label=name, clip_on=False)
        axes.plot(x, np.zeros(len(x)), "|", color=colour, markersize=10, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel(f"confidence (marks at the bottom: bins of equally many test {unit})")
    axes.set_ylabel("share that is right")
    axes.grid(alpha=0.25)
    _percent(axes)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def risk_coverage_curve(
    coverage: np.ndarray, risk: np.ndarray, promises: Sequence[tuple[float, float, float]], unit: str
) -> Figure:
    """The share of wrong answers among the most confident share of all.

    coverage, risk: (N,) as `calibration.risk_coverage` gives them. promises: (allowed error, coverage, error) of each
    certified threshold on the same examples; each is drawn with a line down from what it allows.
    """
    figure = new_figure(6.6, 4.4)
    axes = figure.add_subplot()
    axes.plot(coverage, risk, color=BLUE, linewidth=1.6, label="answered by confidence")
    for i, (allowed, share, error) in enumerate(promises):
        label = "certified threshold: allowed error (bar), measured error (dot)" if i == 0 else None
        axes.plot([share, share], [allowed, error], color=VERMILION, linewidth=1, clip_on=False)
        axes.plot(share, error, "o", color=VERMILION, markersize=6, label=label, zorder=3, clip_on=False)
        axes.plot(share, allowed, "_", color=VERMILION, markersize=14, markeredgewidth=1.6, clip_on=False)
        axes.annotate(f"{allowed:.0%}", (share, allowed), (0, 5), textcoords="offset points", ha="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"coverage: share of the test {unit} that is answered")
    axes.set_ylabel("risk: share of these that is wrong")
    axes.grid(alpha=0.25)
    _percent(axes)
    axes.legend(loc="upper left", frameon=False)
    return figure


def _percent(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
