"""What a model is asked of a file, and which files it is not asked at all."""

import json

import pytest

from common.errors import UserError
from common.inference.source import Source, source_of
from tests.scripts.conftest import squad_json
from tests.support.questions import EXAMPLES


def test_a_pair_is_not_asked_by_its_first_half(tmp_path):
    (tmp_path / "nli.csv").write_text("premise,hypothesis\na,b\n")
    with pytest.raises(
        UserError, match="nli.csv: line 2 is a pair of texts, and the model takes one: .*--pairs"
    ):
        source_of([str(tmp_path / "nli.csv")], ("text",)).count()
    assert source_of([str(tmp_path / "nli.csv")], ("text", "text_pair")).count() == 1
    (tmp_path / "one.jsonl").write_text('{"premise": "a"}\n{"premise": "b", "hypothesis": null}\n')
    assert source_of([str(tmp_path / "one.jsonl")], ("text",)).count() == 2


def test_a_language_that_is_named_is_that_of_all_questions(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(json.loads(squad_json(EXAMPLES[:3])) | {"language": "fr"}))
    asked = ("question", "context")
    assert {e["language"] for e in source_of([str(file)], asked).examples()} == {"fr"}
    assert {e["language"] for e in source_of([str(file)], asked, language="de").examples()} == {"de"}
    # What the file says counts no more, be it wrong: as for score.py and prepare_data.py.
    row = {"question": "Was?", "context": "Ein Haus.", "answer": "Haus", "language": "German"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    document = json.loads(squad_json(EXAMPLES[:3])) | {"language": "German"}
    file.write_text(json.dumps(document))
    for path in (tmp_path / "rows.jsonl", file):
        with pytest.raises(UserError, match="German"):
            list(source_of([str(path)], asked, answers_required=True).examples())
        found = source_of([str(path)], asked, answers_required=True, language="de").examples()
        assert {e["language"] for e in found} == {"de"}
    with pytest.raises(UserError, match="--language is for questions"):
        source_of([str(file)], ("text",), language="de")


def test_labels_of_any_number_are_lists(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x|y\nb,\n")
    source = source_of([str(tmp_path / "a.csv")], ("text",), answers_required=True, multi_label=True)
    assert [e["label"] for e in source.examples()] == [["x", "y"], []]


def test_ids_are_those_of_one_example_each(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,a\n1,b\n")
    with pytest.raises(UserError, match="line 3: the id '1' is used twice"):
        source_of([str(tmp_path / "a.csv")], ("text",)).count()
    (tmp_path / "b.csv").write_text("id,text\n1,a\n")
    with pytest.raises(UserError, match="'1' is used twice, in .*b.csv and .*c.csv"):
        (tmp_path / "c.csv").write_text("id,text\n1,a\n")
        source_of([str(tmp_path / "b.csv"), str(tmp_path / "c.csv")], ("text",)).count()


def test_nothing_is_no_source():
    with pytest.raises(UserError, match="data holds no examples"):
        Source("data", lambda: iter([])).count()
