"""The task with any number of labels: what it keeps of a run, and when a served model agrees with it."""

from types import SimpleNamespace

import numpy as np
import pytest

from common.data.record import DataRecord
from common.tasks.classification.agreement import relabelled_sets
from common.tasks.classification.label_sets import LabelSet
from common.tasks.table import TASKS

TASK = TASKS["multi-label-classification"]
NAMES = ("anger", "joy", "surprise")
RECORD = DataRecord(
    kind="multi-label text",
    labels=NAMES,
    source="text",
    name="feelings",
    version="multi-label",
    files=[],
    seed=1,
    validation_share=0.1,
    counts={},
    label_counts={"test": {"joy": 9, "anger": 3, "surprise": 1}},
    fingerprint="f",
)
ROW = {"id": "t", "prediction": ["joy"], "probabilities": {"anger": 0.1, "joy": 0.8, "surprise": 0.498}}
LIMITS = {"anger": 0.5, "joy": 0.5, "surprise": 0.5}


def test_the_model_decides_each_label_by_itself():
    config = TASK.head_config(RECORD)
    assert config["problem_type"] == "multi_label_classification" and config["id2label"][2] == "surprise"
    assert "problem_type" not in TASKS["classification"].head_config(RECORD)
    args = SimpleNamespace(max_length=64)
    stored = TASK.stored_settings(args, RECORD, [0.5, 0.4, 0.3])
    assert stored == {"max_length": 64, "labels": list(NAMES), "thresholds": [0.5, 0.4, 0.3]}
    assert TASK.decided([0.5, 0.4, 0.3]) == {}


def test_a_row_holds_names():
    p = LabelSet((1,), NAMES, np.array([0.1, 0.8, 0.3]), np.full(3, 0.5))
    assert TASK.row(p, {"label": [1, 2]}) == {
        "prediction": ["joy"],
        "labels": ["joy", "surprise"],
        "probability": pytest.approx(0.7),
        "probabilities": {"anger": 0.1, "joy": 0.8, "surprise": 0.3},
    }


@pytest.mark.parametrize(
    ("labels", "scores", "agrees"),
    [
        (["joy"], [0.801], True),
        (["joy"], [0.9], False),
        (["joy", "surprise"], [0.8, 0.501], True),
        (["joy", "anger"], [0.8, 0.1], False),
        ([], [], False),
        (["joy", "shame"], [0.8, 0.5], False),
    ],
)
def test_labels_must_be_those_of_training_but_for_those_at_their_threshold(labels, scores, agrees):
    limits = LIMITS | {"shame": 0.5}
    assert (not relabelled_sets([ROW], [{"labels": labels, "scores": scores}], limits, 0.005)) == agrees


def test_answers_differ_by_the_labels_that_one_of_them_lacks():
    one = {"labels": ["joy"], "probabilities": {"joy": 0.9, "anger": 0.49}}
    other = {"labels": ["joy", "anger"], "probabilities": {"joy": 0.6, "anger": 0.52}}
    assert TASK.apart(one, other) == pytest.approx(0.03) and TASK.apart(one, one) is None


def test_the_served_score_is_f1_by_text():
    rows = [{"labels": ["joy", "anger"]}, {"labels": []}]
    answers = [{"labels": ["joy"]}, {"labels": []}]
    assert TASK.served_score(answers, rows, []) == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_a_text_is_in_a_slice_for_each_of_its_labels(monkeypatch):
    example = {"id": "1", "text": "What!", "text_pair": "word " * 150, "label": [1, 2]}
    found = TASK.slices(TASK.described(example, RECORD))
    assert found == {
        "text length": "101-200 words",
        "number of labels": "2",
        "label joy": "texts that have it",
        "label surprise": "texts that have it",
    }
    monkeypatch.setattr("common.tasks.classification.task.MOST_SLICES", 2)
    assert "label surprise" not in TASK.slices(TASK.described(example, RECORD))
