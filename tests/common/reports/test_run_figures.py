"""Figures: what is drawn, and that no label covers another."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from common.paths import ROOT
from common.reports.run_figures import f1_against_parameters, loss_curve, slice_scores
from common.scoring import slices
from common.tasks.table import TASKS

COLUMNS = ["label", "trainable_parameters", "test_f1", "test_f1_low", "test_f1_high"]
SIX = [
    ("LoRA", 1.20e6, 61.1, 58.9, 63.3),
    ("LoHa", 1.25e6, 60.4, 58.1, 62.5),
    ("Standard", 22.7e6, 59.8, 57.5, 62.0),
    ("IA3", 3.1e4, 48.0, 45.8, 50.2),
    ("Prefix tuning", 1.85e5, 44.0, 41.0, 46.0),
    ("Prompt encoder", 2.10e5, 43.5, 40.4, 45.6),
]


def log(losses, scores=(), every=1):
    history = [{"step": 1 + every * i, "loss": loss, "learning_rate": 0.1} for i, loss in enumerate(losses)]
    return history + [{"step": 10 * (i + 1), "eval_f1": score} for i, score in enumerate(scores)]


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_a_long_curve_is_faint_and_smoothed_beside_f1():
    losses = np.linspace(5, 1, 50) + np.tile([0.3, -0.3], 25)
    left, right = loss_curve(log(losses.tolist(), [40.0, 61.5, 60.0])).axes
    raw, smooth = left.get_lines()
    assert list(raw.get_ydata()) == losses.tolist() and raw.get_alpha() < 0.5
    assert np.abs(np.diff(smooth.get_ydata())).max() < np.abs(np.diff(losses)).min()
    assert list(lines(right)["validation F1"].get_xdata()) == [10, 20, 30]
    assert list(lines(right)["kept"].get_ydata()) == [61.5]
    assert [text.get_text() for text in right.texts] == ["40.0", "61.5", "60.0"]
    assert right.get_ylim() == (0, 105) and left.get_xlim()[1] > 50


def test_a_short_curve_is_drawn_as_it_is():
    (left,) = loss_curve(log([3.0, 2.0])).axes
    (line,) = left.get_lines()
    assert (line.get_label(), list(line.get_ydata()), line.get_alpha()) == ("training loss", [3.0, 2.0], None)


@pytest.mark.parametrize(
    "history",
    [
        [],
        log([], [50.0]),
        log([math.nan, math.inf, 2.0], [math.nan]),
        log([2.0] * 40, [0.0]),
        [{"step": 3, "train_runtime": 1}],
    ],
)
def test_odd_histories_can_be_drawn(history, tmp_path):
    figure = loss_curve(history)
    figure.savefig(tmp_path / "curve.png")
    assert all(
        0 <= x <= axes.get_xlim()[1]
        for axes in figure.axes
        for line in axes.get_lines()
        for x in line.get_xdata()
    )


def boxes(figure):
    figure.draw_without_rendering()
    (axes,) = figure.axes
    renderer = figure.canvas.get_renderer()
    labels = [text for text in axes.texts if text.get_text()]
    return axes, labels, [text.get_window_extent(renderer) for text in labels]


@pytest.mark.parametrize(
    "rows",
    [
        SIX,
        [(name, 1e6, 50.0, 45.0, 55.0) for name, *_ in SIX],
        [(f"LoRA, {i:06x}", 1e6 * 1.02**i, 60 - i / 10, 58.0, 62.0) for i in range(12)],
        [("at the very edge", 1.0, 0.0, 0.0, 0.0), ("at the other edge", 1e9, 100.0, 100.0, 100.0)],
    ],
    ids=["six", "same place", "many", "edges"],
)
def test_labels_cover_neither_each_other_nor_a_point(rows):
    table = pd.DataFrame(rows, columns=COLUMNS)
    axes, labels, places = boxes(f1_against_parameters(table))
    assert [text.get_text() for text in labels] == list(table["label"])
    assert not any(a.overlaps(b) for a, b in itertools.combinations(places, 2))
    points = axes.transData.transform(table[["trainable_parameters", "test_f1"]].to_numpy())
    assert not any(box.contains(*point) for box in places for point in points)
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in places)


def test_bars_are_the_intervals_and_the_best_stands_out():
    (axes,) = f1_against_parameters(pd.DataFrame(SIX, columns=COLUMNS)).axes
    assert axes.get_xscale() == "log"
    ends = [tuple(container.lines[2][0].get_segments()[0][:, 1].round(6)) for container in axes.containers]
    assert ends == [(low, high) for *_, low, high in SIX]
    colours = [container.lines[0].get_color() for container in axes.containers]
    assert colours.count(colours[0]) == 1 and len(set(colours)) == 2


@pytest.mark.parametrize(
    "rows", [[], [("LoRA", 1e6, 61.0, math.nan, math.nan)], [("x", math.nan, 61.0, 60.0, 62.0)]]
)
def test_missing_figures_are_left_out(rows, tmp_path):
    f1_against_parameters(pd.DataFrame(rows, columns=COLUMNS)).savefig(tmp_path / "figure.png")


def test_the_figure_names_every_slice_and_both_models():
    examples = [{"text": "word " * n, "label": n % 2, "label_name": "ab"[n % 2]} for n in range(1, 60)]
    table = slices.scores_by_slice(examples, [n % 3 > 0 for n in range(59)], TASKS["classification"].slices)
    figure = slice_scores(table, "accuracy", "texts", ("version 1", table))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        f"{row.slice}  ({row.examples})" for row in table.itertuples()
    ]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["this run", "version 1"]
    assert "accuracy" in axes.get_xlabel()


def test_needs_no_display_and_no_pyplot():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from common.reports.run_figures import loss_curve\n"
        "loss_curve([{'step': 1, 'loss': 2.0}]).savefig('/dev/null', format='png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(ROOT)], check=True, env={"MPLBACKEND": "tkagg"})
