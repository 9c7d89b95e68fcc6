"""One door to the rows of any file: questions and texts, with places, answers and labels optional."""

import io
import json
import tracemalloc

import pytest

from common.data.columns import parse
from common.data.examples import read_examples
from common.data.question_files import read_questions
from common.errors import UserError
from tests.common.data.test_tables import write
from tests.support.question_rows import ROWS, as_squad, flat, save


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "arrow"])
def test_questions_have_their_place_and_file(kind, tmp_path):
    path = write(tmp_path / f"a.{kind}", flat())
    found = list(read_examples([path], "qa"))
    assert [{k: e[k] for k in ROWS[0]} for e in found] == ROWS
    first = {"csv": "line 2", "jsonl": "line 1"}.get(kind, "row 0")
    assert found[0]["place"] == f"{first} (id 'q0')" and found[0]["file"] == f"a.{kind}"


def test_ids_are_those_of_prepared_data(tmp_path):
    path = save(tmp_path / "a.json", json.loads(as_squad([e | {"id": ""} for e in ROWS])))
    assert [e["id"] for e in read_examples([path], "qa")] == [e["id"] for e in read_questions(path).examples]


def test_globs_and_several_files_in_order(tmp_path):
    write(tmp_path / "b.csv", flat(ROWS[:4]))
    write(tmp_path / "a.csv", flat(ROWS[4:8]))
    save(tmp_path / "c.json", as_squad(ROWS[8:]))
    found = read_examples([str(tmp_path / "?.csv"), tmp_path / "c.json"], "qa")
    assert [e["id"] for e in found] == [e["id"] for e in (*ROWS[4:8], *ROWS[:4], *ROWS[8:])]
    with pytest.raises(UserError, match="'q0' is used twice, in .*b.csv and .*copy.csv"):
        list(read_examples([tmp_path / "b.csv", write(tmp_path / "copy.csv", flat(ROWS[:1]))], "qa"))


def test_answers_may_be_missing_and_faults_are_taken(tmp_path):
    rows = [{"question": "Who?", "context": "Ada."}, {"question": "", "context": "Bob."}]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match="a.jsonl: line 1 has no 'answers'"):
        list(read_examples([path], "qa"))
    with pytest.raises(UserError, match="line 2: the question is empty"):
        list(read_examples([path], "qa", answers_required=False))
    skipped = []
    (found,) = read_examples([path], "qa", answers_required=False, skipped=skipped)
    assert found["answers"] == {"text": [], "answer_start": []}
    assert skipped == [{"file": "a.jsonl", "place": "line 2", "reason": ": the question is empty."}]


def test_texts(tmp_path):
    rows = [{"review": "good", "stars": "5"}, {"review": "bad", "stars": ""}, {"review": " ", "stars": "1"}]
    path = write(tmp_path / "a.csv", rows)
    given, skipped = parse("label=stars"), []
    found = list(read_examples([path], "text", columns=given, answers_required=False, skipped=skipped))
    assert [(e["id"], e["text"], e["label"]) for e in found] == [
        ("a-0-770e6076", "good", "5"),
        ("a-1-2f05d4b6", "bad", ""),
    ]
    assert found[1]["place"] == "line 3" and skipped[0]["reason"].startswith(": the text is empty")
    with pytest.raises(UserError, match="line 3: the label is empty"):
        list(read_examples([path], "text", columns=given))
    with pytest.raises(UserError, match="a.csv has no column 'label'"):
        list(read_examples([path], "text"))
    assert [e["label"] for e in read_examples([path], "text", answers_required=False, skipped=[])] == [
        None,
        None,
    ]


def test_pairs_of_texts_and_ids(tmp_path):
    rows = [
        {"id": "x", "premise": "a", "hypothesis": "b", "label": 1},
        {"id": "x", "premise": "c", "hypothesis": "d", "label": 0},
    ]
    path = write(tmp_path / "a.parquet", rows)
    with pytest.raises(UserError, match="row 1: the id 'x' is used twice"):
        list(read_examples([path], "text"))
    first = next(read_examples([path], "text"))
    assert first == {
        "id": "x",
        "text": "a",
        "text_pair": "b",
        "label": 1,
        "place": "row 0",
        "file": "a.parquet",
    }


def test_texts_without_ids_in_files_of_one_name_are_told_apart(tmp_path):
    for folder, text in (("p", "good"), ("q", "bad")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "part.csv", [{"text": text, "label": 1}])
    found = list(read_examples([str(tmp_path / "*" / "part.csv")], "text"))
    assert [e["text"] for e in found] == ["good", "bad"] and found[0]["id"] != found[1]["id"]
    # They follow from the content alone.
    alone = list(read_examples([tmp_path / "q" / "part.csv"], "text"))
    assert alone[0]["id"] == found[1]["id"]


def test_a_second_text_is_checked_like_the_first_and_may_be_null(tmp_path):
    rows = [{"text": "a", "text_pair": pair, "label": 1} for pair in ("b", None, " ", 5)]
    skipped = []
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = list(read_examples([tmp_path / "a.jsonl"], "text", skipped=skipped))
    assert [e.get("text_pair") for e in found] == ["b", None]
    assert [fault["reason"] for fault in skipped] == [
        ": the second text is empty; remove the row or give its text.",
        ": the second text is 5, not text; remove the row or give its text.",
    ]


def test_numbers_of_classes_that_a_file_names_are_given_by_name(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["world", "sport"])})
    Dataset.from_list([{"text": "a", "label": 1}], features=kinds).to_parquet(tmp_path / "a.parquet")
    assert next(read_examples([tmp_path / "a.parquet"], "text"))["label"] == "sport"


def test_any_number_of_labels_is_read_as_prepared_data_reads_it(tmp_path):
    listed = write(
        tmp_path / "listed.csv",
        [{"text": "a", "labels": "x|y"}, {"text": "b", "labels": ""}, {"text": "c", "labels": "['x']"}],
    )
    expected = [["x", "y"], [], ["x"]]
    assert [e["label"] for e in read_examples([listed], "text", multi_label=True)] == expected
    rows = [("a", 1, 1, 5), ("b", 0, 0, 6), ("c", 1, 0, 7)]
    columns = write(tmp_path / "columns.csv", [{"text": t, "x": x, "y": y, "nr": n} for t, x, y, n in rows])
    given = parse("label=x+y,id=nr")
    found = list(read_examples([columns], "text", columns=given, multi_label=True))
    assert [(e["id"], e["label"]) for e in found] == list(zip("567", expected, strict=True))
    left = list(read_examples([columns], "text", columns=parse("id=nr"), multi_label=True))
    assert [e["label"] for e in left] == expected
    with pytest.raises(UserError, match="line 2: the column 'nr' is '5'; as a label it must be 0 or 1"):
        list(read_examples([columns], "text", multi_label=True))
    with pytest.raises(UserError, match="has no column 'z', which --columns gives for label"):
        list(read_examples([columns], "text", columns=parse("label=x+z"), multi_label=True))
    bare = list(read_examples([columns], "text", answers_required=False, multi_label=True))
    assert [e["label"] for e in bare] == [None] * 3


def test_the_standard_input_is_lines_of_json(monkeypatch):
    lines = "\n".join(json.dumps(e) for e in ROWS)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert [e["id"] for e in read_examples(["-"], "qa")] == [e["id"] for e in ROWS]
    monkeypatch.setattr("sys.stdin", io.StringIO('{"text": "good", "label": "pos"}\n{"text": 5}\n'))
    with pytest.raises(UserError, match="stdin: line 2 has no column 'label'"):
        list(read_examples(["-"], "text"))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_memory_does_not_grow_with_a_table(kind, tmp_path):
    rows = [{"question": f"{n}?", "context": f"Ada {n} " * 300, "answer": "Ada"} for n in range(5000)]
    path = write(tmp_path / f"a.{kind}", rows)
    del rows
    list(read_examples([write(tmp_path / f"small.{kind}", flat())], "qa"))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_examples([path], "qa")) == 5000
        assert tracemalloc.get_traced_memory()[1] < 9e6
    finally:
        tracemalloc.stop()
