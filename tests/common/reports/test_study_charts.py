"""Figures of studies: which lines, axes and labels they have, and when there is nothing to draw."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm

from common.reports.configurations import configurations, tidy
from common.reports.study_charts import (
    against_axis,
    efficiency_tradeoff,
    heatmap,
    points_per_mparams,
    time_per_step,
)
from common.reports.study_curves import accuracy_curves, flow_of_best, gradient_flow, loss_curves, series_of
from tests.support.studies import KINDS, make_gradients, make_runs, make_study


def tabled(kind):
    study, runs, histories, scores = KINDS[kind]() if isinstance(kind, str) else kind
    return study, configurations(study, tidy(study, runs), scores), histories


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def ticks(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def thick(axes):
    return [line for line in axes.get_lines() if line.get_linewidth() == 2]


def test_accuracy_curves_have_a_line_and_a_band_for_each_technique():
    study, table, histories = tabled("techniques")
    figure = accuracy_curves(table, study["axes"], histories, "f1")
    (axes,) = figure.axes
    assert (
        legend(figure)
        == list(table["label"])
        == ["Standard", "LoRA", "LoHa", "IA3", "Prefix tuning", "Prompt encoder"]
    )
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "validation F1, %")
    assert len(thick(axes)) == len(axes.get_lines()) == 6 and len(axes.collections) == 6
    drawn = thick(axes)[1]
    runs = [[e["eval_f1"] for e in histories[run] if "eval_f1" in e] for run in table["run_ids"][1]]
    assert drawn.get_ydata() == pytest.approx(np.mean(runs, axis=0)) and list(drawn.get_xdata()) == [1, 2, 3]
    assert (
        len({line.get_color() for line in thick(axes)})
        == len({line.get_marker() for line in thick(axes)})
        == 6
    )


def test_of_a_sweep_the_best_is_thick_and_the_others_thin():
    study, table, histories = tabled("learning_rates")
    figure = accuracy_curves(table, study["axes"], histories, "f1")
    sweep, final = figure.axes
    assert (sweep.get_title(), final.get_title()) == ("sweep", "final") and legend(figure) == ["LoRA", "IA3"]
    assert (len(thick(sweep)), len(sweep.get_lines())) == (2, 10) and len(thick(final)) == len(
        final.get_lines()
    ) == 2
    best = table[(table["stage"] == "sweep") & (table["technique"] == "LoRA")]["validation"].idxmax()
    (run,) = table["run_ids"][best]
    assert list(thick(sweep)[0].get_ydata()) == [e["eval_f1"] for e in histories[run] if "eval_f1" in e]


def test_losses_are_drawn_by_step_and_by_epoch():
    study, table, histories = tabled("generative")
    by_step, by_epoch = loss_curves(table, study["axes"], histories).axes
    assert (by_step.get_xlabel(), by_epoch.get_xlabel()) == ("optimizer step", "epoch")
    assert max(thick(by_step)[0].get_xdata()) == 120 and max(thick(by_epoch)[0].get_xdata()) == 3
    assert {axes.get_ylabel() for axes in (by_step, by_epoch)} == {"training loss"}


def test_a_loss_that_explodes_does_not_flatten_the_others():
    study, runs, histories, scores = KINDS["generative"]()
    for entry in histories["run0000"][:2]:
        entry["loss"] = 1e6
    figure = loss_curves(tabled((study, runs, histories, scores))[1], [], histories)
    assert figure.axes[0].get_ylim()[1] < 100


def test_many_configurations_are_told_apart_by_the_axis_that_matters_most():
    study, table, histories = tabled("grid")
    names = series_of(table, study["axes"])
    assert set(names) == {"r 4", "r 8", "r 16", "r 32"}
    figure = accuracy_curves(table, study["axes"], histories, "f1")
    assert legend(figure) == ["r 4", "r 8", "r 16", "r 32"] and len(figure.axes[0].get_lines()) == 24


def test_time_per_step_has_a_bar_for_each_configuration_and_a_point_for_each_seed():
    _, table, _ = tabled("techniques")
    seconds = {run: 0.01 * (i + 1) for i, runs in enumerate(table["run_ids"]) for run in runs}
    (axes,) = time_per_step(table, seconds).axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([10, 20, 30, 40, 50, 60])
    assert (
        ticks(axes.yaxis) == list(table["label"])
        and axes.get_xlabel() == "training time per optimizer step, ms"
    )
    assert [len(line.get_xdata()) for line in axes.get_lines()] == [3] * 6
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    (axes,) = time_per_step(table, {run: 100 * s for run, s in seconds.items()}).axes
    assert axes.get_xlabel().endswith(", s") and axes.patches[0].get_width() == pytest.approx(1)
    assert time_per_step(table, {}) is None


def test_points_per_million_parameters_lie_on_a_logarithmic_axis():
    _, table, _ = tabled("techniques")
    (axes,) = points_per_mparams(table, "f1").axes
    assert axes.get_xscale() == "log" and "per million trained parameters" in axes.get_xlabel()
    points = [line.get_xdata()[0] for line in axes.get_lines()]
    assert points[3] == pytest.approx(table["test"][3] / 0.014)
    assert points_per_mparams(table.assign(trainable_parameters=np.nan), "f1") is None


def test_the_tradeoff_shows_time_score_memory_and_intervals():
    _, table, _ = tabled("generative")
    figure = efficiency_tradeoff(table, "f1")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "training time, min" and axes.get_ylabel() == "test F1, %"
    assert "95% interval" in axes.get_title() and "area: peak memory" in axes.get_title()
    assert {text.get_text() for text in axes.texts if text.get_text()} == {
        "Standard, 6.0 GiB",
        "LoRA, 3.0 GiB",
    }
    full, lora = (container.lines[0].get_markersize() ** 2 for container in axes.containers)
    assert full / lora == pytest.approx(2)
    low, high = axes.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((table["low"][0], table["high"][0]))


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_the_tradeoff_cover_each_other_nowhere(kind):
    _, table, _ = tabled(kind)
    figure = efficiency_tradeoff(
        table[table["stage"] == table["stage"].iloc[-1]], "accuracy" if kind == "sizes" else "f1"
    )
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in labels]
    assert labels and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_scores_by_the_number_of_examples_have_intervals():
    _, table, _ = tabled("sizes")
    figure = against_axis(table, "max_train_samples", "accuracy", tested=True)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and ticks(axes.xaxis) == ["2,000", "5,000", "10,000", "25,000"]
    assert axes.get_xlabel() == "training examples (logarithmic)"
    assert axes.get_ylabel() == "test accuracy, % (bars: 95% interval)" and legend(figure) == [
        "Standard",
        "LoRA",
    ]
    ends = np.array([segment[:, 1] for segment in axes.containers[0].lines[2][0].get_segments()])
    assert ends == pytest.approx(table.loc[:3, ["low", "high"]].to_numpy())


def test_a_sweep_is_drawn_by_validation_and_rings_the_best():
    _, table, _ = tabled("learning_rates")
    (axes,) = against_axis(table[table["stage"] == "sweep"], "learning_rate", "f1", tested=False).axes
    assert axes.get_xscale() == "log" and ticks(axes.xaxis) == ["3e-4", "1e-3", "2e-3", "5e-3", "1e-2"]
    assert "validation F1" in axes.get_ylabel()
    rings = [line for line in axes.get_lines() if line.get_markersize() == 14]
    tops = table[table["stage"] == "sweep"].groupby("technique", sort=False)["validation"].max()
    assert [ring.get_ydata()[0] for ring in rings] == pytest.approx(tops.tolist())


def test_a_heatmap_holds_means_and_frames_the_best():
    _, table, _ = tabled("grid")
    axes, bar = heatmap(table, "r", "learning_rate", "f1").axes
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == (
        "rank",
        "learning rate",
        "validation F1, %",
    )
    assert ticks(axes.xaxis) == ["4", "8", "16", "32"] and ticks(axes.yaxis) == ["5e-4", "2e-3", "8e-3"]
    cells = table.pivot_table(index="learning_rate", columns="r", values="validation")
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(cells.to_numpy())
    assert [text.get_text() for text in axes.texts] == [f"{value:.1f}" for value in cells.to_numpy().ravel()]
    row, column = np.unravel_index(cells.to_numpy().argmax(), cells.shape)
    (frame,) = axes.patches
    assert frame.get_xy() == (column - 0.5, row - 0.5)


def test_a_heatmap_says_what_was_not_run_and_needs_two_axes():
    _, table, _ = tabled("grid")
    holes = table[~((table["r"] == 4) & (table["targets"] == "attention"))]
    axes, _ = heatmap(holes, "r", "targets", "f1").axes
    assert [text.get_text() for text in axes.texts].count("not run") == 1
    assert heatmap(table[table["r"] == 4], "r", "targets", "f1") is None


def test_gradients_flow_over_steps_and_layers():
    axes, bar = gradient_flow({"LoRA": make_gradients()}).axes
    mesh = axes.collections[0]
    assert isinstance(mesh.norm, LogNorm) and "logarithmic" in bar.get_ylabel()
    assert (
        ticks(axes.yaxis) == [*(f"layer {i}" for i in range(6)), "head"]
        and axes.get_xlabel() == "optimizer step"
    )
    assert mesh.get_array().shape == (7, 13)
    low, high = axes.get_xlim()
    assert low < 1 and high > 120
    assert gradient_flow({}) is None and gradient_flow({"x": [{"step": 1, "head": math.nan}]}) is None
    assert gradient_flow({"x": [{"step": 1, "head": 2.0}]}) is not None


def test_of_many_runs_the_best_of_each_series_shows_its_gradients():
    study, table, histories = tabled("grid")
    gradients = {run: make_gradients() for run in histories}
    flow = flow_of_best(table, study["axes"], gradients)
    best = table.loc[table.groupby("r")["validation"].idxmax()]
    assert list(flow) == list(best["label"])
    assert len([axes for axes in gradient_flow(flow).axes if axes.get_title()]) == 4
    assert flow_of_best(table, study["axes"], {}) == {}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_left_out(value):
    study, runs, histories, scores = KINDS["generative"]()
    for column in runs.select_dtypes("number"):
        runs[column] = runs[column].astype(float)
        runs.loc[0, column] = value
    for entry in histories["run0000"]:
        entry |= {"loss": value} if "loss" in entry else {"eval_f1": value}
    study, table, _ = tabled((study, runs, histories, {}))
    figure = accuracy_curves(table, [], histories, "f1")
    assert legend(figure) == ["LoRA"]
    (axes,) = efficiency_tradeoff(table, "f1").axes
    assert len(axes.containers) == 1
    figure.draw_without_rendering()


def test_without_runs_there_are_no_figures():
    study = make_study("none", axes=["r"])
    runs = pd.DataFrame([{"stage": "runs", "technique": "LoRA", "status": "failed", "failure": "x", "r": 4}])
    table = configurations(study, tidy(study, runs), {})
    assert accuracy_curves(table, ["r"], {}, "f1") is None and loss_curves(table, ["r"], {}) is None
    assert efficiency_tradeoff(table, "f1") is None and points_per_mparams(table, "f1") is None
    assert against_axis(table, "r", "f1", True) is None and heatmap(table, "r", "r", "f1") is None


def test_twenty_four_labels_stand_in_rows_of_their_own():
    rows = [{"technique": f"technique {i}", "quality": 0.3 + i / 60} for i in range(24)]
    study, table, _ = tabled((make_study("many"), *make_runs(rows)))
    figure = points_per_mparams(table, "f1")
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 24 and not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
