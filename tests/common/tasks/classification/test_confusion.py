"""What is read off a confusion matrix, against scikit-learn and against examples that are really resampled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from common.tasks.classification import confusion

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(PAIRS)
def test_scores_are_those_of_scikit_learn(pairs):
    every = list(range(4))
    labels, found = np.array(pairs).T
    counts = confusion.confusion_matrix(labels, found, 4)
    assert np.array_equal(counts, confusion_matrix(labels, found, labels=every))
    assert confusion.accuracy(counts) == pytest.approx(accuracy_score(labels, found))
    # Over the classes that occur.
    assert confusion.f1_macro(counts) == pytest.approx(
        f1_score(labels, found, average="macro", zero_division=0)
    )
    rows = confusion.rows_of_classes(counts, "abcd")
    expected = precision_recall_fscore_support(labels, found, labels=every, zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        given = [np.nan if row[name] is None else row[name] for row in rows]
        assert given == pytest.approx(values, nan_ok=True, abs=1e-6)


@given(PAIRS)
def test_the_f1_of_two_classes_is_that_of_the_second(pairs):
    labels, found = np.array(pairs).T % 2
    counts = confusion.confusion_matrix(labels, found, 2)
    assert confusion.f1(counts) == pytest.approx(f1_score(labels, found, average="binary", zero_division=0))


def test_the_interval_is_that_of_resampled_examples():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    found = np.where(rng.random(300) < 0.8, labels, 1 - labels)
    counts = confusion.confusion_matrix(labels, found, 2)
    resampled = []
    for _ in range(2000):
        i = rng.integers(300, size=300)
        resampled.append(confusion.f1(confusion.confusion_matrix(labels[i], found[i], 2)))
    assert confusion.f1_interval(counts) == pytest.approx(np.quantile(resampled, (0.025, 0.975)), abs=0.01)
    perfect = confusion.confusion_matrix(labels, labels, 2)
    assert confusion.f1_interval(perfect) == (1.0, 1.0)


def test_the_interval_of_the_mean_is_that_of_resampled_examples_with_a_rare_class():
    rng = np.random.default_rng(1)
    labels = rng.choice(5, 250, p=(0.5, 0.3, 0.15, 0.04, 0.01))
    found = np.where(rng.random(250) < 0.7, labels, rng.integers(0, 5, 250))
    resampled = []
    for _ in range(500):
        i = rng.integers(250, size=250)
        resampled.append(f1_score(labels[i], found[i], average="macro", zero_division=0))
    low, high = confusion.f1_macro_interval(confusion.confusion_matrix(labels, found, 5))
    assert (low, high) == pytest.approx(np.quantile(resampled, (0.025, 0.975)), abs=0.015)


def test_a_thousand_classes_take_no_more_than_their_cells():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 1000, 2000)
    found = np.where(rng.random(2000) < 0.6, labels, rng.integers(0, 1000, 2000))
    counts = confusion.confusion_matrix(labels, found, 1000)
    low, high = confusion.f1_macro_interval(counts, n=50)
    assert 0 < low < high < 1 and low - 0.1 < confusion.f1_macro(counts) < high + 0.1
