"""Bodies of requests, without a server; over HTTP: tests/scripts/test_serve.py."""

import json

import pytest

from common.serving.requests import (
    Refusal,
    abstaining,
    best_first,
    check_json,
    least_confidence,
    read_csv,
)


def test_an_empty_line_of_one_column_is_an_empty_text():
    """Skipped, it would give the texts below it the answers of other lines."""
    assert read_csv("text\na\nb\n\n\n", ["text"]) == {"text": ["a", "b"]}
    with pytest.raises(ValueError, match="empty text above line 4"):
        read_csv("text\na\n\nb\n", ["text"])
    assert read_csv("q,c\n1,2\n\n3,4\n", ["q", "c"]) == {"q": ["1", "3"], "c": ["2", "4"]}


def test_texts_of_a_csv_stay_as_they_are():
    text = '\ufefftext\r\n"two\r\nlines, ""quoted"""\r\nNA\r\n5\r\n'
    assert read_csv(text, ["text"]) == {"text": ['two\r\nlines, "quoted"', "NA", "5"]}


@pytest.mark.parametrize("content", [{"inputs": {"text": "one"}}, {"inputs": {"text": ["a", "b"]}}])
def test_columns_are_taken(content):
    check_json(json.dumps(content).encode(), ["text"], ["top_k"])


@pytest.mark.parametrize(
    "content",
    [
        {"inputs": [{"text": "one"}]},
        {"instances": [{"text": "one", "kind": "x"}, {"text": "two", "kind": None}]},
        {"inputs": {"text": ["a", "b"], "kind": ["x", "y"]}},
        {"dataframe_split": {"columns": ["kind", "text"], "data": [["x", "one"]]}},
    ],
)
def test_an_optional_column_is_taken_where_all_rows_have_it(content):
    check_json(json.dumps(content), ["text"], [], ["kind"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"instances": [{"text": "one"}, {"text": "two", "kind": "x"}]}, "row 1 and row 0 differ in 'kind'"),
        ({"inputs": [{"text": "one", "kinds": "x"}]}, "'kinds', which is not known; did you mean 'kind'"),
        ({"inputs": [{"kind": "x"}]}, "row 0 has no 'text'"),
        ({"inputs": {"text": ["a", "b"], "kind": ["x"]}}, "2 of 'text' and 1 of 'kind'"),
    ],
)
def test_rows_with_and_without_an_optional_column_are_refused(content, reason):
    """MLflow reads each column of "instances" by itself, so that its cells would move to other rows."""
    with pytest.raises(ValueError, match=reason):
        check_json(json.dumps(content), ["text"], [], ["kind"])


def test_an_optional_column_of_a_csv():
    assert read_csv("text\na\n", ["text"], ["kind"]) == {"text": ["a"]}
    assert read_csv("kind,text\n,a\n", ["text"], ["kind"]) == {"kind": [""], "text": ["a"]}
    with pytest.raises(ValueError, match="'sort', which is not known"):
        read_csv("sort,text\nx,a\n", ["text"], ["kind"])


HELD = {"abstention": {"thresholds": [[0.01, None], [0.05, 0.9], [0.1, 0.5]]}}


@pytest.mark.parametrize(
    ("max_error", "least"),
    [(None, None), (0.05, 0.9), (0.07, 0.9), (0.1, 0.5), (0.09999999, 0.5), (0.5, 0.5)],
)
def test_the_threshold_of_the_largest_promise_that_is_allowed(max_error, least):
    assert least_confidence(HELD, max_error) == least


@pytest.mark.parametrize(
    ("settings", "max_error", "reason"),
    [
        (HELD, 0.02, "max_error is 0.02, which this model cannot promise; it can promise 0.05, 0.1"),
        (HELD, 0.001, "it can promise 0.05, 0.1"),
        ({"abstention": {"thresholds": [[0.1, None]]}}, 0.1, "it can promise none"),
        ({}, 0.1, "it can promise none"),
        (HELD, 0.0, "it is a share of wrong answers"),
        (HELD, 1.0, "it is a share of wrong answers"),
        (HELD, float("nan"), "it is a share of wrong answers"),
    ],
)
def test_what_cannot_be_promised_is_refused(settings, max_error, reason):
    with pytest.raises(Refusal, match=reason):
        least_confidence(settings, max_error)


def test_below_the_threshold_the_answer_is_held_back():
    ranked = [
        {"answer": "a", "score": 0.6, "raw_score": 0.7},
        {"answer": "b", "score": 0.4, "raw_score": 0.3},
    ]
    assert abstaining(ranked, None, {"answer": ""}) == ranked
    assert abstaining(ranked, 0.7, {"answer": ""}) == [each | {"abstained": False} for each in ranked]
    assert abstaining(ranked, 0.71, {"answer": ""}) == [
        {"answer": "", "score": 0.6, "raw_score": 0.7, "abstained": True}
    ]


def test_raw_scores_are_shown_where_they_are_asked_for():
    ranked = [
        {"answer": "a", "score": 0.6, "raw_score": 0.7},
        {"answer": "b", "score": 0.4, "raw_score": 0.3},
    ]
    assert best_first(ranked, 1, False) == {"answer": "a", "score": 0.6}
    assert best_first(ranked, 1, True) == ranked[0]
    assert best_first(ranked, 2, False)["alternatives"] == [{"answer": "b", "score": 0.4}]
    assert best_first(ranked[:1], 2, True) == ranked[0] | {"alternatives": []}
