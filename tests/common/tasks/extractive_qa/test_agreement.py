"""Served spans are those of training, except for ties."""

import pytest

from common.tasks.extractive_qa import agreement

ROW = {
    "id": "q",
    "question": "Who?",
    "prediction": "Marie",
    "start": 8,
    "end": 13,
    "probability": 0.5,
    "n_best": [
        {"start": 8, "end": 13, "score": 5.0},
        {"start": 8, "end": 19, "score": 4.995},
        {"start": 0, "end": 2, "score": 1.0},
        {"start": -1, "end": -1, "score": 5.5},
    ],
}


@pytest.mark.parametrize(
    ("answer", "threshold", "agrees"),
    [
        (("Marie", 0.5, 8, 13), 1.0, True),
        (("Marie", 0.6, 8, 13), 1.0, False),
        (("marie", 0.5, 8, 13), 1.0, False),
        (("Marie Curie", 0.5, 8, 19), 1.0, True),
        (("In", 0.5, 0, 2), 1.0, False),
        (("", 0.5, -1, -1), 1.0, False),
        (("", 0.5, -1, -1), 0.495, True),
        (("elsewhere", 0.5, 30, 40), 1.0, False),
    ],
)
def test_answers_must_be_those_of_training_but_for_ties(answer, threshold, agrees):
    given = dict(zip(("answer", "score", "start", "end"), answer, strict=True))
    assert (not agreement.disagreements([ROW], [given], threshold, 0.01)) == agrees


def test_scores_are_held_against_those_of_the_models_temperature():
    weight = [2.718281828 ** ((s - 5.5) / 2) for s in (5.0, 4.995, 1.0, 5.5)]
    row = ROW | {"probability": 0.282}
    for score, agrees in ((weight[0] / sum(weight), True), (0.282, False)):
        given = {"answer": "Marie", "score": score, "start": 8, "end": 13}
        assert (not agreement.disagreements([row], [given], 1.0, 0.01, temperature=2.0)) == agrees
