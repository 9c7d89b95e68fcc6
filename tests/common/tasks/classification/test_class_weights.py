"""Weights of classes, against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from common.tasks.classification import class_weights


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80))
def test_weights_are_scikit_learns_and_have_the_mean_1(drawn):
    present = sorted(set(drawn))
    labels = np.searchsorted(present, drawn)
    weights = class_weights.of_classes(labels, len(present))
    expected = compute_class_weight("balanced", classes=np.arange(len(present)), y=labels)
    assert weights == pytest.approx(expected) and weights[labels].mean() == pytest.approx(1)


def test_a_class_that_does_not_occur_has_no_weight_and_a_rare_one_not_too_much():
    labels = np.array([0] * 999 + [1])
    assert class_weights.of_classes(labels, 3).tolist() == pytest.approx([1000 / 2997, 100, 0])


def test_positive_weights_make_up_for_missing_labels():
    sets = [np.array(each, dtype=np.int64) for each in ([0], [0, 1], [], [0])]
    assert class_weights.of_positives(sets, 4).tolist() == pytest.approx([1 / 3, 3, 1, 1])
    rare = [np.array([0])] + [np.array([], dtype=np.int64)] * 999
    assert class_weights.of_positives(rare, 1).tolist() == [100]
