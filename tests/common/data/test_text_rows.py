"""Files of labelled texts in every format: what a row holds, and what is wrong with it."""

import json

import pytest

from common.data import label_values
from common.data.text_rows import read_texts
from common.errors import UserError
from common.faults import refuse
from tests.support.texts import write_parquet


def read(path):
    """The rows of a file without faults; UserError names those that it has."""
    found = read_texts(path)
    refuse(path, found.faults)
    return found.rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "feeling": 1}], "has no column 'label'"),
        ([{"text": "a", "label": 0}, {"text": "", "label": 1}], "row 1: the text is empty"),
        ([{"text": "a", "label": 0}, {"text": None, "label": 1}], "row 1: the text is empty"),
        ([{"text": 5, "label": 0}], "row 0: the text is 5, not text"),
        ([{"text": "a", "label": 0.5}], "row 0: the label is 0.5; it must be a string or an integer"),
        ([{"text": "a", "label": [1]}], r"row 0: the label is the list \[1\]; .* --multi_label"),
        ([{"text": "a", "label": None}], "row 0: the label is None"),
    ],
    ids=str,
)
def test_a_bad_parquet_is_refused_by_row(rows, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(write_parquet(tmp_path / "bad.parquet", rows))


def test_what_is_no_parquet_and_what_is_not_utf8_in_it(tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "bad.parquet").write_bytes(b"text,label")
    for name, message in (("bad.parquet", "cannot be read as parquet"), ("none.parquet", "No such file")):
        with pytest.raises(UserError, match=message):
            read(tmp_path / name)
    text = pyarrow.array([b"fine", b"sch\xf6n"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": text, "label": [0, 1]}), tmp_path / "latin.parquet")
    with pytest.raises(UserError, match="row 1 is not UTF-8"):
        read(tmp_path / "latin.parquet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'review,sentiment\n"Good; really, it is.",positive\nBad,negative\n'),
        ("a.csv", "Text;Label\nGood, really;1.00\nBad, really;0.0\n"),
        ("a.tsv", "id\ttext\tlabel\n1\tGood\tLABEL_1\n2\tBad\tLABEL_0\n"),
        ("a.jsonl", '{"text": "Good", "label": 1}\n\n{"text": "Bad", "label": "Negative"}\n'),
        ("a.json", '[{"text": "Good", "label": 1.0}, {"text": "Bad", "label": 0}]'),
        ("a.txt", '{"text": "Good", "label": "Positive"}\n{"text": "Bad", "label": "neg"}\n'),
        ("a.tsv", 'sentence\tlabel\nGood "film\t1\n"Bad" film\t0\n'),
    ],
    ids=["kaggle", "semicolon", "tab", "lines", "list", "lines by content", "tab without quoting"],
)
def test_other_columns_delimiters_and_labels(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    found = read_texts(tmp_path / name).rows
    assert [label_values.sentiment(label) for e in found for label in e.labels] == ["positive", "negative"]
    assert found[0].text.startswith("Good") and found[1].text.strip('"').startswith("Bad")


def test_a_line_that_is_not_json_is_refused_by_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "Good", "label": 1}\n{"text": \n')
    (fault,) = read_texts(tmp_path / "a.jsonl").faults
    assert f"{fault['place']}{fault['reason']}".startswith("line 2 is not JSON")


def test_json_lines_end_at_line_feeds_alone(tmp_path):
    text = "Good \N{LINE SEPARATOR}and \N{NEXT LINE}long"
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": text, "label": 1}, ensure_ascii=False) + "\r\n", "utf-8"
    )
    assert read_texts(tmp_path / "a.jsonl").rows[0].text == text
