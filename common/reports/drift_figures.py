"""Figures of one measure of the reference data and of what was served."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .drawing import GREY, VERMILION, new_figure

BINS = 24
MOST = 8
"""Categories that are drawn; the others are one bar."""


def of_numbers(reference: Sequence[float], served: Sequence[float], name: str) -> Figure:
    """Two histograms over the same bins, as shares. The hundredth at each end is drawn at the edge."""
    figure = new_figure(7.2, 3.0)
    axes = figure.add_subplot()
    one, other = np.asarray(reference, dtype=float), np.asarray(served, dtype=float)
    low, high = (
        pick(np.quantile(one, share), np.quantile(other, share)) for pick, share in ((min, 0.01), (max, 0.99))
    )
    if np.all(one == np.round(one)) and np.all(other == np.round(other)):
        # Bins of whole numbers, or some would have one number more than others.
        step = max(1, np.ceil((high - low + 1) / BINS))
        edges = np.floor(low) - 0.5 + step * np.arange(np.ceil((high - low + 1) / step) + 1)
    else:
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = [np.histogram(np.clip(each, edges[0], edges[-1]), edges)[0] / len(each) for each in (one, other)]
    axes.stairs(shares[0], edges, fill=True, color=GREY, alpha=0.45, label="reference")
    axes.stairs(shares[1], edges, color=VERMILION, linewidth=1.8, label="served")
    axes.set_xlabel(name)
    axes.set_ylabel("share")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def of_categories(reference: Sequence[str], served: Sequence[str], name: str) -> Figure:
    """Bars of the shares of both, the most common category first."""
    counts = [Counter(each) for each in (reference, served)]
    shares = [{name: n / sum(each.values()) for name, n in each.items()} for each in counts]
    names = sorted(shares[0] | shares[1], key=lambda each: -(shares[0].get(each, 0) + shares[1].get(each, 0)))
    rows = [(each, [share.get(each, 0.0) for share in shares]) for each in names[:MOST]]
    if names[MOST:]:
        rows.append(("others", [sum(share.get(each, 0.0) for each in names[MOST:]) for share in shares]))
    figure = new_figure(7.2, 1.4 + 0.42 * len(rows))
    axes = figure.add_subplot()
    places = np.arange(len(rows))
    for of, (label, colour, up) in enumerate((("reference", GREY, -0.19), ("served", VERMILION, 0.19))):
        widths = [both[of] for _, both in rows]
        axes.barh(places + up, widths, 0.36, color=colour, alpha=0.45 if of == 0 else 1, label=label)
        for place, width in zip(places, widths, strict=True):
            axes.annotate(
                f"{width:.1%}",
                (width, place + up),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.set_yticks(places, [each if len(each) <= 24 else each[:23] + "…" for each, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.arange(0, 1.01, 0.25))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel(name)
    axes.grid(axis="x", alpha=0.25)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure
