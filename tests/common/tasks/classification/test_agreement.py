"""Served labels are those of training, except for ties."""

import pytest

from common.tasks.classification import agreement

LABELLED = {
    "id": "t",
    "prediction": "positive",
    "probability": 0.501,
    "probabilities": {"negative": 0.499, "positive": 0.501},
}
SURE = LABELLED | {"probability": 0.9, "probabilities": {"negative": 0.1, "positive": 0.9}}


@pytest.mark.parametrize(
    ("row", "label", "score", "agrees"),
    [
        (SURE, "positive", 0.902, True),
        (SURE, "positive", 0.95, False),
        (SURE, "negative", 0.1, False),
        (SURE, "negative", 0.9, False),
        (LABELLED, "negative", 0.5005, True),
        (LABELLED, "neutral", 0.5, False),
    ],
)
def test_labels_must_be_those_of_training_but_for_ties(row, label, score, agrees):
    assert (not agreement.relabelled([row], [{"label": label, "score": score}], 0.005)) == agrees


@pytest.mark.parametrize(("score", "agrees"), [(0.75, True), (0.9, False)])
def test_scores_are_held_against_those_of_the_models_temperature(score, agrees):
    """The square roots of 0.9 and 0.1 are as 3 to 1."""
    given = {"label": "positive", "score": score}
    assert (not agreement.relabelled([SURE], [given], 0.005, temperature=2.0)) == agrees
