"""Figures of a test: scores of mixed data by the set that each example is of."""

from types import SimpleNamespace

import numpy as np
import pytest

from common.tasks.table import task_of
from common.training.results import Tested, figures


def result(origins):
    examples = [{"id": str(i)} | ({"origin": o} if o else {}) for i, o in enumerate(origins)]
    split = SimpleNamespace(examples=examples, features=examples)
    each = {"f1": np.array([1.0, 0.5, 0.0, 0.25]), "exact_match": np.array([1.0, 0.0, 0.0, 0.0])}
    scores = {"f1": 43.75, "exact_match": 25.0, "total": 4}
    return Tested(split, split, None, [], [], scores, scores, each, each, 2.0, None)


def test_scores_are_logged_by_origin():
    found = figures(result(["a", "b/\u00e9", "a", "b/\u00e9"]), task_of("extractive-qa"))
    assert found["test_f1_a"] == pytest.approx(50.0) and found["test_exact_match_a"] == pytest.approx(50.0)
    # MLflow allows no other characters in a metric's name.
    assert found["test_f1_b__"] == pytest.approx(37.5)
    assert found["test_f1"] == 43.75


def test_data_of_one_set_has_no_further_figures():
    assert not [
        name
        for name in figures(result([None] * 4), task_of("extractive-qa"))
        if name.startswith("test_f1_") and name not in ("test_f1_low", "test_f1_high")
    ]
