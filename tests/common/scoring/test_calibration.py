"""Temperature, calibration error and risk against coverage."""

import numpy as np
import pytest

from common.scoring import calibration
from common.scoring.calibration import Candidates


def drawn(n, temperature, classes=6, seed=0):
    """Candidates of a model whose logits are too large by this factor, answered with the likeliest; and what is right."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (n, classes))
    p = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    label = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    given = true.argmax(1)
    return Candidates.of((temperature * true).tolist(), given.tolist()), label == given


def test_confidence_is_the_softmax_at_the_given_answer():
    candidates = Candidates.of([[1.0, 3.0], [], [5.0], [0.0, 2.0, 700.0]], [1, 0, 0, 1])
    found = candidates.confidence()
    assert found == pytest.approx([1 / (1 + np.exp(-2)), 0.0, 1.0, 0.0])
    assert candidates.confidence(2.0)[0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert len(candidates) == 4


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_again(temperature):
    candidates, right = drawn(20_000, temperature)
    found = calibration.fit_temperature(candidates, right)
    assert found == pytest.approx(temperature, rel=0.05)
    before, after = (calibration.calibration_error(candidates.confidence(t), right) for t in (1.0, found))
    assert after < 0.01 and (temperature == 1.0 or before > 3 * after)


def test_fitting_lowers_the_log_loss_of_small_samples_too():
    for seed in range(20):
        candidates, right = drawn(60, 3.0, seed=seed)
        found = calibration.fit_temperature(candidates, right)
        losses = [calibration.log_loss(candidates.confidence(t), right) for t in (1.0, found)]
        assert losses[1] <= losses[0]


@pytest.mark.parametrize("right", [9, 11])
def test_a_handful_of_errors_changes_nothing(right):
    """Nine right of twenty, or nine wrong."""
    candidates, _ = drawn(20, 3.0)
    assert calibration.fit_temperature(candidates, np.arange(20) < right) == 1.0
    assert calibration.fit_temperature(candidates, np.arange(20) < 10) != 1.0


def test_no_order_within_an_example_changes():
    scores = np.random.default_rng(0).normal(0, 3, (50, 8))
    for temperature in (0.1, 7.0):
        each = [Candidates.of(scores.tolist(), [i] * 50).confidence(temperature) for i in range(8)]
        assert (np.argsort(each, axis=0) == np.argsort(scores.T, axis=0)).all()
        assert np.sum(each, axis=0) == pytest.approx(np.ones(50))


def test_calibration_error_by_hand():
    confidence = np.array([0.1, 0.1, 0.6, 0.8, 0.95, 0.97])
    right = np.array([0, 1, 1, 0, 1, 1])
    table = calibration.reliability(confidence, right, bins=2)
    assert [tuple(each) for each in table] == [
        (3, pytest.approx(0.8 / 3), pytest.approx(2 / 3)),
        (3, pytest.approx(2.72 / 3), pytest.approx(2 / 3)),
    ]
    assert calibration.calibration_error(confidence, right, bins=2) == pytest.approx((1.2 + 0.72) / 6)
    wide = calibration.reliability(confidence, right, bins=2, equal_mass=False)
    assert [each.examples for each in wide] == [2, 4]
    assert calibration.calibration_error(confidence, right, 2, equal_mass=False) == pytest.approx(
        (0.8 + abs(3 - 3.32)) / 6
    )


@pytest.mark.parametrize("equal_mass", [True, False])
def test_a_calibrated_model_has_little_error(equal_mass):
    rng = np.random.default_rng(0)
    confidence = rng.random(100_000)
    right = rng.random(100_000) < confidence
    assert calibration.calibration_error(confidence, right, equal_mass=equal_mass) < 0.01
    assert len(calibration.reliability(confidence, right, equal_mass=equal_mass)) == calibration.BINS
    assert calibration.calibration_error(np.ones(10), np.zeros(10), equal_mass=equal_mass) == 1.0


def test_fewer_examples_than_bins():
    assert len(calibration.reliability(np.array([0.2, 0.9]), np.array([0, 1]))) == 2


def test_risk_against_coverage():
    confidence, right = np.array([0.9, 0.2, 0.6, 0.4]), np.array([1, 0, 0, 1])
    coverage, risk = calibration.risk_coverage(confidence, right)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
    assert calibration.aurc(confidence, right) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_the_order_of_ties_is_nobodys_luck():
    right = np.array([1, 1, 0, 0])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        assert calibration.aurc(np.full(4, 0.5), right[order]) == pytest.approx(0.5)


@pytest.mark.parametrize("equal_mass", [True, False])
def test_the_order_of_examples_does_not_change_the_calibration_error(equal_mass):
    """Equal confidences fall into several bins of equal mass: sorted by label they must not look worse than shuffled."""
    rng = np.random.default_rng(0)
    confidence, right = np.full(1000, 0.8), np.arange(1000) < 840
    confidence[::7] = 0.6
    found = []
    for order in (np.arange(1000), np.arange(1000)[::-1], rng.permutation(1000)):
        found.append(calibration.calibration_error(confidence[order], right[order], equal_mass=equal_mass))
    assert found == pytest.approx([found[0]] * 3)
    alone = calibration.calibration_error(np.full(1000, 0.8), right, equal_mass=equal_mass)
    assert alone == pytest.approx(0.04)


def test_a_table_of_scores_is_what_its_rows_are():
    rng = np.random.default_rng(3)
    scores, given = rng.normal(0, 3, (40, 5)), rng.integers(0, 5, 40).tolist()
    scores[3, 2] = -np.inf
    table, rows = Candidates.of_table(scores, given), Candidates.of(scores.tolist(), given)
    for name in ("score", "first", "given"):
        assert np.array_equal(getattr(table, name), getattr(rows, name)), name
    for temperature in (1.0, 0.3, 4.0):
        assert np.array_equal(table.confidence(temperature), rows.confidence(temperature))
