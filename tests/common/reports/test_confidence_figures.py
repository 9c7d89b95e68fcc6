"""Figures of confidence show what they are given."""

import numpy as np
import pytest

from common.reports import confidence_figures
from common.scoring import calibration


@pytest.fixture(scope="module")
def graded():
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    return confidence, rng.random(500) < confidence


def test_the_reliability_diagram_has_a_point_for_each_bin(graded):
    bins = {
        "raw (ECE 5.0%)": calibration.reliability(*graded),
        "calibrated (ECE 2.0%)": calibration.reliability(*graded),
    }
    figure = confidence_figures.reliability_diagram(bins, "questions")
    (axes,) = figure.axes
    named = {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
    assert list(named) == list(bins)
    for name, line in named.items():
        assert list(line.get_xdata()) == [b.confidence for b in bins[name]]
        assert list(line.get_ydata()) == [b.right for b in bins[name]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(bins)


def test_the_risk_coverage_curve_marks_what_was_promised(graded):
    coverage, risk = calibration.risk_coverage(*graded)
    figure = confidence_figures.risk_coverage_curve(
        coverage, risk, [(0.05, 0.2, 0.04), (0.1, 0.4, 0.12)], "texts"
    )
    (axes,) = figure.axes
    curve = axes.get_lines()[0]
    assert (curve.get_xdata() == coverage).all() and (curve.get_ydata() == risk).all()
    assert [text.get_text() for text in axes.texts] == ["5%", "10%"]
    assert len(axes.get_legend().get_texts()) == 2
    # Without a promise there is the curve alone.
    alone = confidence_figures.risk_coverage_curve(coverage, risk, [], "texts")
    assert len(alone.axes[0].get_lines()) == 1
