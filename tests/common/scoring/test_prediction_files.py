"""Files of predictions: what is read, what is refused, and which questions lack one."""

import json

import pytest

from common.errors import UserError
from common.scoring.prediction_files import differences, read_no_answer_probabilities, read_predictions


@pytest.fixture
def write(tmp_path):
    def written(content):
        file = tmp_path / "given.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return written


def test_answers_and_probabilities_are_read_by_id(write):
    assert read_predictions(write({"a": "blue", "b": ""})) == {"a": "blue", "b": ""}
    assert read_no_answer_probabilities(write({"a": 0, "b": 0.25})) == {"a": 0, "b": 0.25}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a": ', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (["blue"], "must hold one JSON object"),
        ({"a": None}, "for 'a'"),
        ({"a": 3}, "for 'a'"),
    ],
)
def test_what_is_no_prediction_is_refused_with_the_file_and_the_id(write, content, reason):
    file = write(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_predictions(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("value", [True, "0.5", None, float("nan")])
def test_a_probability_must_be_a_number(write, value):
    with pytest.raises(UserError, match="'b'"):
        read_no_answer_probabilities(write({"a": 0.5, "b": value}))


def test_questions_without_a_prediction_count_by_the_rules_of_the_version():
    assert differences(["a", "b"], {"a": "", "b": ""}, "v1.1") == []
    (missing,) = differences(list("abcdefgh"), {"a": ""}, "v1.1")
    assert missing == "7 of 8 questions have no prediction and score 0: b, c, d, e, f, ..."
    missing, unknown = differences(["a", "b"], {"a": "", "x": ""}, "v2.0")
    assert "1 of 2 questions have no prediction and are left out: b" == missing
    assert unknown == "1 prediction is for another question and is ignored: x"
