"""Any number of labels for each text: scores against scikit-learn, thresholds against trying all, intervals against resampling."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from common.tasks.classification import label_sets
from common.tasks.classification.texts import independent_probabilities
from common.training.results import write_extras

CLASSES = 4
NAMES = tuple("abcd")
SETS = st.sets(st.integers(0, CLASSES - 1))


def made(sets):
    """Predictions of these labels."""
    found = []
    for each in sets:
        p = np.array([0.9 if i in each else 0.2 for i in range(CLASSES)])
        found.append(label_sets.LabelSet(tuple(sorted(each)), NAMES, p, np.full(CLASSES, 0.5)))
    return found


def hot(sets):
    return np.array([[int(i in each) for i in range(CLASSES)] for each in sets])


@given(st.lists(st.tuples(SETS, SETS), min_size=1, max_size=30))
def test_scores_are_those_of_scikit_learn(pairs):
    truth, given_ = zip(*pairs, strict=True)
    figures, each = label_sets.score(made(given_), [{"label": sorted(t)} for t in truth])
    y, p = hot(truth), hot(given_)
    assert figures["f1_samples"] == pytest.approx(100 * f1_score(y, p, average="samples", zero_division=1))
    assert figures["subset_accuracy"] == pytest.approx(100 * accuracy_score(y, p))
    assert figures["f1_micro"] == pytest.approx(100 * f1_score(y, p, average="micro", zero_division=1))
    occurring = [i for i in range(CLASSES) if y[:, i].any() or p[:, i].any()]
    macro = f1_score(y, p, average="macro", labels=occurring, zero_division=0) if occurring else 0.0
    assert figures["f1_macro"] == pytest.approx(100 * macro)
    for metric, scores in each.items():
        assert 100 * scores.mean() == pytest.approx(figures[metric]) and len(scores) == len(pairs)


def test_intervals_are_those_of_resampled_texts():
    rng = np.random.default_rng(0)
    y = rng.random((250, CLASSES)) < (0.5, 0.3, 0.1, 0.03)
    p = np.where(rng.random(y.shape) < 0.85, y, ~y)

    def sets(matrix):
        return [set(np.flatnonzero(row).tolist()) for row in matrix]

    figures, _ = label_sets.score(made(sets(p)), [{"label": sorted(t)} for t in sets(y)])
    for kind in ("micro", "macro"):
        resampled = []
        for _ in range(400):
            i = rng.integers(250, size=250)
            resampled.append(100 * f1_score(y[i], p[i], average=kind, zero_division=0))
        bounds = (figures[f"f1_{kind}_low"], figures[f"f1_{kind}_high"])
        assert bounds == pytest.approx(np.quantile(resampled, (0.025, 0.975)), abs=1.0)
        assert bounds[0] < figures[f"f1_{kind}"] < bounds[1]


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.3, 0.45, 0.55, 0.8, 0.9]), st.booleans()), min_size=20, max_size=60
    )
)
def test_the_threshold_is_the_best_of_all(pairs):
    probabilities, truth = np.array([p for p, _ in pairs]), np.array([t for _, t in pairs])
    found = label_sets.best_threshold(probabilities, truth)
    if truth.sum() < label_sets.LEAST_POSITIVES:
        assert found == 0.5
        return

    def quality(threshold):
        found = probabilities >= threshold
        return 2 * (truth & found).sum() / (truth.sum() + found.sum())

    tried = [0.05, 0.2, 0.4, 0.5, 0.7, 0.85]
    assert quality(found) == pytest.approx(max(map(quality, tried)))
    # None that is as good lies nearer to the middle.
    assert all(quality(t) < quality(found) - 1e-9 or abs(t - 0.5) >= abs(found - 0.5) - 0.1 for t in tried)


def test_thresholds_are_those_of_each_label_and_decide_the_labels():
    rng = np.random.default_rng(3)
    truth = [{"label": [int(i) for i in np.flatnonzero(rng.random(CLASSES) < 0.4)]} for _ in range(200)]
    # The first label is always underrated, the second overrated.
    logits = np.array([[4.0 * (i in e["label"]) - 2 for i in range(CLASSES)] for e in truth])
    logits += np.array([-3.0, 3.0, 0.0, 0.0])
    outputs = (np.arange(200), logits.astype(np.float32))
    undecided = label_sets.predictions(outputs, NAMES, None)
    thresholds = label_sets.decide(undecided, truth)
    assert thresholds[0] < 0.5 < thresholds[1] and thresholds[2:] == [0.5, 0.5]
    decided = label_sets.predictions(outputs, NAMES, thresholds)
    before, after = (label_sets.score(each, truth)[0] for each in (undecided, decided))
    assert before["f1_micro"] < after["f1_micro"] == 100
    assert [p.labels for p in decided] == [tuple(e["label"]) for e in truth]


def test_the_least_certain_label_says_how_certain_a_text_is():
    p = label_sets.LabelSet((0,), NAMES, np.array([0.9, 0.3, 0.05, 0.1]), np.full(CLASSES, 0.5))
    assert p.certainty == pytest.approx(0.7)


def test_probabilities_overflow_for_no_logit():
    logits = np.array([[-1000.0, 0.0, 1000.0, 2.0]], dtype=np.float32)
    assert independent_probabilities(logits)[0] == pytest.approx([0, 0.5, 1, 1 / (1 + np.exp(-2.0))])


def test_the_loss_is_that_of_every_label_and_weights_count_labels_that_are_there():
    logits = torch.tensor([[0.5, -1.0, 2.0, 0.0], [1.0, 1.0, -1.0, 0.3]])
    labels = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])

    class Model:
        def __call__(self, **batch):
            return type("Output", (), {"logits": logits})

    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    torch.testing.assert_close(label_sets.labels_loss(Model(), {}, labels), expected.sum())
    trained = np.array([[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0]])
    weights = torch.tensor([2.0, 1.0, 0.5, 2.0])
    weighed = (expected * torch.where(labels == 1, weights, 1.0)).sum()
    torch.testing.assert_close(label_sets.training_loss(trained, 4, True, 0.0)(Model(), {}, labels), weighed)
    soft = torch.where(labels == 1, 0.9, 0.1)
    smoothed = torch.nn.functional.binary_cross_entropy_with_logits(logits, soft, reduction="sum")
    torch.testing.assert_close(label_sets.training_loss([], 4, False, 0.2)(Model(), {}, labels), smoothed)


def test_what_is_kept_of_a_test(tmp_path):
    truth = [{"label": [0]}, {"label": [0, 1]}, {"label": []}]
    write_extras(label_sets.extras(made([{0}, {0, 2}, set()]), truth), tmp_path)
    with open(tmp_path / "per_class.csv", newline="", encoding="utf-8") as file:
        table = {row["label"]: row for row in csv.DictReader(file)}
    assert (table["a"]["precision"], table["a"]["support"], table["a"]["threshold"]) == ("1.0", "2", "0.5")
    assert (table["b"]["precision"], table["b"]["recall"]) == ("", "0.0") and table["d"]["f1"] == ""
    arrays = np.load(tmp_path / "preds_and_labels.npz")
    assert arrays["labels"].tolist() == hot([{0}, {0, 1}, set()]).astype(bool).tolist()
    assert arrays["predictions"].shape == arrays["probabilities"].shape == (3, CLASSES)
