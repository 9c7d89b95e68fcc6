"""What figures share; that no label covers another is checked with the figures themselves, in test_run_figures.py."""

import numpy as np
import pytest

from common.reports.drawing import series, smoothed


def test_smoothing_neither_shifts_nor_biases():
    assert smoothed(np.full(30, 2.0)) == pytest.approx(2.0)
    line = np.linspace(0, 1, 101)
    assert smoothed(line)[10:-10] == pytest.approx(line[10:-10], abs=0.01)
    assert len(smoothed(np.array([]))) == 0


def test_a_series_holds_the_steps_of_its_values_and_a_gap_where_one_is_not_finite():
    entries = [{"step": 1, "loss": 2.0}, {"step": 1, "eval_f1": 50.0}, {"step": 3, "loss": float("inf")}]
    steps, values = series(entries, "loss")
    assert steps.tolist() == [1, 3] and values[0] == 2 and np.isnan(values[1])
    assert all(len(part) == 0 for part in series([], "loss"))
