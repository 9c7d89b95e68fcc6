"""What validation says of confidence is stored, and measured on test; a whole run's: tests/common/training/test_recording.py."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from common.models.bundles import read_bundle
from common.scoring import calibration
from common.scoring.calibration import Candidates
from common.tasks.interface import Extras
from common.tasks.table import TASKS
from common.training import confidence, results

TASK = SimpleNamespace(
    candidates=lambda predictions: Candidates.of(*zip(*predictions, strict=True)),
    right_of=lambda each: each["em"] == 1,
)
"""A task whose predictions are (scores of the candidates, index of the given one)."""


def drawn(n, seed):
    """Predictions of a model that is too sure of itself, and the scores of their examples."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(2, 2, n)
    right = rng.random(n) < 1 / (1 + np.exp(-margin / 2))
    # Partly right answers are wrong.
    each = {"f1": np.where(right, 1.0, 0.5), "em": right.astype(float)}
    return [([m, 0.0], 0) for m in margin], each


@pytest.fixture(scope="module")
def found():
    fitted = confidence.fit(TASK, *drawn(4000, 0), choices=3)
    return fitted, confidence.measure(fitted, TASK, *drawn(4000, 1))


def test_the_served_score_is_better_calibrated_on_test_than_the_raw_one(found):
    fitted, tested = found
    assert fitted.temperature == pytest.approx(2.0, rel=0.15)
    figures = tested.figures()
    assert figures["temperature"] == fitted.temperature
    assert figures["test_ece"] < 3 < 5 < figures["test_ece_raw"]
    assert figures["test_ece_equal_width"] < figures["test_ece_equal_width_raw"]
    assert figures["test_aurc"] == 100 * calibration.aurc(tested.raw, tested.right)


def test_what_is_promised_on_validation_is_kept_on_test(found):
    fitted, tested = found
    table = tested.table()
    assert list(table["max_error"]) == [0.01, 0.02, 0.05, 0.1, 0.2]
    made = table.dropna(subset=["threshold"])
    assert 0.2 in set(made["max_error"]) and (made["validation_error"] < made["max_error"]).all()
    # A draw of a size at which chance is small.
    assert (made["test_error"] <= made["max_error"] + 0.01).all() and (made["test_coverage"] > 0.1).all()
    none = table[table["threshold"].isna()]
    assert (none["test_answered"] == 0).all() and none["test_error"].isna().all()


def test_settings_hold_what_serving_needs(found):
    fitted, _ = found
    settings = json.loads(json.dumps(fitted.settings()))
    assert settings["temperature"] == fitted.temperature
    held = settings["abstention"]
    assert (held["confidence"], held["examples"]) == (0.95, 4000)
    assert held["thresholds"] == [[p.max_error, p.threshold] for p in fitted.promises]


def test_files(found, tmp_path):
    _, tested = found
    tested.write(tmp_path / "confidence", "questions")
    names = {file.name for file in (tmp_path / "confidence").iterdir()}
    assert names == {
        "confidence.json",
        "abstention.csv",
        "abstention.md",
        "reliability.png",
        "risk_coverage.png",
    }
    kept = json.loads((tmp_path / "confidence" / "confidence.json").read_text())
    assert set(tested.figures()) < set(kept) and len(kept["risk_coverage"]["risk"]) == confidence.POINTS
    assert sum(each["examples"] for each in kept["reliability"]["raw"]) == 4000
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "confidence" / "abstention.csv"), tested.table(), rtol=1e-4
    )
    page = (tmp_path / "confidence" / "abstention.md").read_text()
    assert "none can be promised" in page and "4,000 validation questions" in page


def test_questions_of_few_articles_promise_nothing(tmp_path):
    """The same answers promise something where each was drawn by itself."""
    predictions, each = drawn(4000, 0)
    groups = [str(i % 12) for i in range(4000)]
    fitted = confidence.fit(TASK, predictions, each, 1, groups)
    assert fitted.groups == 12 and all(p.threshold is None for p in fitted.promises)
    assert fitted.settings()["abstention"]["groups"] == 12
    alone = confidence.fit(TASK, predictions, each, 1)
    assert (
        any(p.threshold is not None for p in alone.promises)
        and "groups" not in alone.settings()["abstention"]
    )
    for number, found in enumerate((fitted, alone)):
        confidence.measure(found, TASK, *drawn(50, 1)).write(tmp_path / str(number), "questions")
    pages = [(tmp_path / str(number) / "abstention.md").read_text() for number in range(2)]
    assert "12 groups" in pages[0] and "approximate" in pages[0]
    assert "groups" not in pages[1] and "exact if" in pages[1]


def test_a_handful_of_examples_promises_nothing_and_leaves_scores_alone(tmp_path):
    fitted = confidence.fit(TASK, *drawn(8, 0), choices=1)
    assert fitted.temperature == 1.0 and all(p.threshold is None for p in fitted.promises)
    tested = confidence.measure(fitted, TASK, *drawn(5, 1))
    assert (tested.raw == tested.calibrated).all()
    tested.write(tmp_path / "confidence", "texts")


def test_a_task_without_confidence_has_none():
    assert confidence.fit(SimpleNamespace(candidates=lambda _: None), [1], {"f1": [1]}, 1) is None
    assert confidence.fit(TASK, [], {"em": np.zeros(0)}, 1) is None


def test_a_run_stores_and_logs_its_confidence(recorded):
    run, artifacts, folder = recorded
    assert {"temperature", "test_ece", "test_ece_raw", "test_aurc"} <= run.data.metrics.keys()
    (bundle,) = {file.parent for file in folder.rglob("bundle.json")}
    settings = read_bundle(bundle).settings
    # Six validation questions promise nothing.
    assert settings["temperature"] == 1.0 == run.data.metrics["temperature"]
    assert [alpha for alpha, threshold in settings["abstention"]["thresholds"] if threshold is None] == [
        0.01,
        0.02,
        0.05,
        0.1,
        0.2,
    ]
    rows = json.loads((next(folder.rglob("predictions/test.json"))).read_text())
    assert [row["calibrated"] for row in rows] == pytest.approx([row["probability"] for row in rows])
    assert next(folder.rglob("confidence/risk_coverage.png")).stat().st_size > 1000


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_confidence(name):
    """A set of labels has no probability: every label has its own."""
    says_so = type(TASKS[name]).candidates.__qualname__ != "Task.candidates"
    assert says_so and (TASKS[name].candidates([]) is None) == (name == "multi-label-classification")


def test_predictions_hold_the_calibrated_confidence(found, tmp_path):
    """The temperature is not 1: the raw confidence is another number."""
    fitted, _ = found
    predictions, each = drawn(20, 2)
    tested = confidence.measure(fitted, TASK, predictions, each)
    raw = {f"q{i}": float(p) for i, p in enumerate(tested.raw)}
    task = SimpleNamespace(
        metrics=("f1", "em"),
        row=lambda prediction, example: {"prediction": "a", "probability": raw[example["id"]]},
        extras=lambda predictions, examples: Extras(),
    )
    test = SimpleNamespace(examples=[{"id": name} for name in raw])
    none = SimpleNamespace(examples=[])
    results.write_predictions(
        results.Tested(none, test, None, [], predictions, {}, {}, each, {}, 1.0, tested), task, tmp_path / "p"
    )
    rows = json.loads((tmp_path / "p" / "test.json").read_text())
    served = [1 / (1 + np.exp(-scores[0] / fitted.temperature)) for scores, _ in predictions]
    assert [row["calibrated"] for row in rows] == pytest.approx(served)
    assert all(abs(row["calibrated"] - row["probability"]) > 1e-3 for row in rows)
