"""Bodies of requests, without a server; over HTTP: tests/scripts/test_serve.py."""

import json

import pytest

from common.serving.requests import check_json, read_csv


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
