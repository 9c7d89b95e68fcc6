"""Who is beaten by whom, over the score and the costs."""

import math

import pandas as pd
import pytest

from common.reports import pareto
from common.reports.configurations import configurations, tidy
from tests.support.studies import KINDS


def stage(**columns):
    """Three configurations; costs that are not given are the same for all."""
    given = {"label": list("abc"), "test": [60.0, 50.0, 40.0]} | columns
    return pd.DataFrame({cost: [1.0] * 3 for cost in pareto.COSTS} | given)


def test_a_configuration_is_beaten_by_one_that_is_as_good_everywhere_and_better_somewhere():
    table = stage(training_seconds=[10, 20, 5], adapter_mib=[1, 2, 1])
    assert pareto.known(table) == ["training_seconds", "adapter_mib"]
    assert pareto.dominators(table, ["training_seconds", "adapter_mib"]) == {0: [], 1: [0], 2: []}
    assert pareto.front(table, ["training_seconds", "adapter_mib"]) == {0, 2}
    assert pareto.front(table, ["adapter_mib"]) == {0}
    assert pareto.behind(table) == {1: 0}


def test_equals_do_not_beat_each_other():
    table = stage(test=[60.0, 60.0, 60.0], training_seconds=[10, 10, 11])
    assert pareto.dominators(table, ["training_seconds"]) == {0: [], 1: [], 2: [0, 1]}


def test_of_speed_more_is_better():
    table = stage(evaluation_samples_per_second=[10, 20, 5])
    assert pareto.front(table, ["evaluation_samples_per_second"]) == {0, 1}


def test_a_cost_that_was_not_measured_everywhere_decides_nothing():
    table = stage(peak_memory_mib=[10, math.nan, 5], training_seconds=[3, 2, 1])
    assert pareto.known(table) == ["training_seconds"]
    table.loc[1, "test"] = math.nan
    assert pareto.known(table) == ["training_seconds", "peak_memory_mib"]
    assert set(pareto.dominators(table, pareto.known(table))) == {0, 2}


def test_the_rows_mark_the_fronts():
    header, rows, strong = pareto.rows(stage(training_seconds=[10, 20, 5], adapter_mib=[1, 2, 1234.5]), "f1")
    assert header == ["configuration", "test F1", "training time, s", "stored weights, MiB", "beaten by"]
    assert rows == [
        ["a", "60.0", "10*", "1*", ""],
        ["b", "50.0", "20", "2", "a"],
        ["c", "40.0", "5*", "1,234", ""],
    ]
    assert strong == [True, False, True]


@pytest.mark.parametrize("kind", ["techniques", "generative"])
def test_the_figure_has_a_panel_for_each_cost_and_the_line_of_its_front(kind):
    study, runs, _, scores = KINDS[kind]()
    table = configurations(study, tidy(study, runs), scores)
    figure = pareto.chart(table, "f1")
    if kind == "generative":
        assert figure is None, "two configurations are no front"
        return
    *panels, legend = figure.axes
    assert len(panels) == len(pareto.known(table)) == 5
    assert [text.get_text() for text in legend.get_legend().get_texts()] == list(table["label"])
    for panel, cost in zip(panels, pareto.known(table), strict=True):
        (line,) = [line for line in panel.get_lines() if line.get_drawstyle() != "default"]
        members = pareto.front(table, [cost])
        assert sorted(line.get_ydata()) == sorted(table.loc[list(members), "test"])
        filled = [
            line
            for line in panel.get_lines()
            if line.get_markerfacecolor() != "none" and line.get_marker() != "None"
        ]
        assert len(filled) == len(members)
    looks = {(line.get_color(), line.get_marker()) for line in panels[0].get_lines()}
    assert len(looks) == len(table) + 1
