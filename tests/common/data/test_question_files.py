"""Questions in every format and shape: the same rows are the same data, and faults are named by file and place."""

import csv
import json

import pytest

from common.data import prepared, questions, squad_shapes
from common.data.columns import parse
from common.data.question_files import read_questions, stream_questions
from common.data.squad_shapes import as_question
from common.errors import UserError
from tests.common.data.test_tables import write
from tests.support.question_rows import ROWS, as_squad, flat, save

FORMS = {
    "train.csv": lambda path: write(path, flat()),
    "train.csv.gz": lambda path: write(path, flat()),
    "train.tsv": lambda path: write(path, flat()),
    "train.txt": lambda path: write(path, flat()),
    "train.jsonl": lambda path: write(path, ROWS),
    "train.jsonl.gz": lambda path: write(path, flat()),
    "train.parquet": lambda path: write(path, ROWS),
    "train.arrow": lambda path: write(path, ROWS),
    "train.feather": lambda path: write(path, flat()),
    "train.json": lambda path: save(path, as_squad()),
    "a/train.json": lambda path: save(path, ROWS),
    "b/train.json": lambda path: save(path, {"data": ROWS}),
    "c/train.json": lambda path: save(path, json.dumps(json.loads(as_squad()), indent=2)),
    # Rows of a paragraph need not stand together.
    "d/train.json": lambda path: save(path, [*ROWS[::4], *ROWS[1::4], *ROWS[2::4], *ROWS[3::4]]),
}


def test_the_same_rows_in_every_format_are_the_same_data(tmp_path):
    prints = {}
    for n, (name, make) in enumerate(FORMS.items()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        record = questions.prepare_files(
            make(tmp_path / name), None, tmp_path / f"out{n}", validation_share=0.3
        )
        prints[name] = record.fingerprint
        assert record.version == "v2.0" and record.test_by in ("article", "paragraph")
    assert len(set(prints.values())) == 1


def test_rows_without_ids_have_the_same_ids_in_every_format_and_when_streamed(tmp_path):
    rows = [{"question": e["question"], "context": e["context"], "answer": "Ada"} for e in ROWS]
    files = [write(tmp_path / f"a.{kind}", rows) for kind in ("csv", "jsonl", "parquet", "json")]
    read = [read_questions(file) for file in files]
    assert all(found.examples == read[0].examples for found in read)
    assert len({e["id"] for e in read[0].examples}) == 20
    assert read[0].counts["located"] == 20 and not read[0].repaired
    for file in files:
        assert sorted(q.scored["id"] for q in stream_questions(file)) == sorted(
            e["id"] for e in read[0].examples
        )


def test_columns_are_named_and_several_answers_stand_in_a_cell(tmp_path):
    rows = [
        {"q": "Who?", "text": "Ada and Bob.", "a": '["Ada", "Bob"]', "s": "[0, 8]"},
        {"q": "Which?", "text": "Ada and Bob.", "a": "{'text': ['Bob'], 'answer_start': [8]}", "s": ""},
        {"q": "Where?", "text": "[1] is here", "a": "[1]", "s": "0"},
        {"q": "When?", "text": "{now}", "a": "{now}", "s": ""},
        {
            "q": "Why?",
            "text": "Ada and Bob.",
            "a": "{'text': array(['Ada'], dtype=object), 'answer_start': array([0])}",
            "s": "",
        },
    ]
    given = parse("question=q,context=text,answer=a,answer_start=s")
    found = read_questions(write(tmp_path / "a.csv", rows), columns=given)
    assert {e["question"]: tuple(e["answers"].values()) for e in found.placed} == {
        "Who?": (["Ada", "Bob"], [0, 8]),
        "Which?": (["Bob"], [8]),
        "Where?": (["[1]"], [0]),
        "When?": (["{now}"], [0]),
        "Why?": (["Ada"], [0]),
    }
    with pytest.raises(UserError, match="a.csv has no column 'answers' .*'q', 'text', 'a', 's'"):
        read_questions(tmp_path / "a.csv")
    with pytest.raises(UserError, match="a.csv has no column 'x', which --columns gives for context"):
        read_questions(tmp_path / "a.csv", columns=parse("context=x"))


def test_faults_are_named_by_file_and_row_and_can_be_skipped(tmp_path):
    rows = flat()
    rows[1]["answer"] = ""
    rows[4]["question"] = " "
    for e in rows:
        e["is_impossible"] = ""
    rows = [e for e in rows if e["answer"] or e["id"] == "q1"]
    path = write(tmp_path / "bad.csv", rows)
    with pytest.raises(
        UserError,
        match=r"bad.csv has 2 faults(.|\n)*line 3 .id 'q1'. has no answers.*\n.*line 5 .id 'q4'.: the question is empty",
    ):
        read_questions(path)
    found = read_questions(path, "skip")
    assert len(found.skipped) == 2 and len(found.examples) == len(rows) - 2
    with pytest.raises(UserError, match="line 3 .id 'q1'. has no answers"):
        list(stream_questions(path))
    skipped = []
    assert len(list(stream_questions(path, skipped=skipped))) == len(rows) - 2
    assert [fault["place"] for fault in skipped] == ["line 3 (id 'q1')", "line 5 (id 'q4')"]
    assert {fault["file"] for fault in skipped} == {"bad.csv"}


def test_an_answer_that_is_not_found_is_named_and_one_that_occurs_often_is_counted(tmp_path):
    rows = [
        {"question": "1?", "context": "reddish, red, red", "answer": "red"},
        {"question": "2?", "context": "Cafe\u0301 \u200bau\r\n lait", "answer": "caf\u00e9 au lait"},
        {"question": "3?", "context": "green", "answer": "mauve"},
    ]
    for kind, place in (("csv", "line 5"), ("jsonl", "line 3"), ("parquet", "row 2")):
        found = read_questions(write(tmp_path / f"a.{kind}", rows))
        assert [e["answers"] for e in found.placed] == [
            {"text": ["red"], "answer_start": [9]},
            {"text": ["Cafe\u0301 \u200bau\r\n lait"], "answer_start": [0]},
        ]
        assert (found.counts["located"], found.counts["ambiguous"], found.repaired, found.dropped) == (
            2,
            1,
            1,
            1,
        )
        assert f"a.{kind}: {place}, answer 0: 'mauve' is not found" in found.notes[0]


def test_each_row_of_a_table_is_converted_once(tmp_path, monkeypatch):
    converted = []

    def counted(row, fields):
        converted.append(row)
        return as_question(row, fields)

    monkeypatch.setattr(squad_shapes, "as_question", counted)
    assert len(read_questions(write(tmp_path / "a.csv", flat(ROWS[:5]))).examples) == len(converted) == 5


def test_questions_without_answers_are_streamed_where_none_are_required(tmp_path):
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([["question", "context"], ["Who?", "Ada."], ["", "Bob."]])
    with pytest.raises(UserError, match="a.csv has no column 'answers' "):
        list(stream_questions(tmp_path / "a.csv"))
    skipped = []
    found = list(stream_questions(tmp_path / "a.csv", answers_required=False, skipped=skipped))
    assert [q.scored["answers"] for q in found] == [{"text": [], "answer_start": []}]
    assert skipped[0]["place"] == "line 3"


def test_several_files_are_one_set(tmp_path):
    parts = [ROWS[:8], ROWS[8:16], ROWS[16:]]
    for n, rows in enumerate(parts):
        save(tmp_path / f"part{n}.json", [e | {"id": str(i)} for i, e in enumerate(rows)])
    record = questions.prepare_files(str(tmp_path / "part*.json"), None, tmp_path / "o", validation_share=0.3)
    assert [file["name"] for file in record.files] == ["part0.json", "part1.json", "part2.json"]
    assert sum(c["questions"] for c in record.counts.values()) == 20 and record.renamed_ids == 12
    odd = (
        [ROWS[0] | {"id": "0"}, ROWS[1] | {"id": "b-1"}],
        [ROWS[2] | {"id": "0"}, ROWS[3] | {"id": "b-0"}, ROWS[4] | {"id": "c"}],
    )
    files = [save(tmp_path / f"{name}.json", rows) for name, rows in zip("ab", odd, strict=True)]
    test = save(tmp_path / "test.json", ROWS[8:])
    record = questions.prepare_files(files, test, tmp_path / "odd", validation_share=0.3)
    ids = {
        id_ for split in ("train", "validation") for id_ in prepared.load(tmp_path / "odd")[0][split]["id"]
    }
    assert ids == {"0", "b-1", "b-0-2", "b-0", "c"} and record.renamed_ids == 1
    (tmp_path / "again.json").write_text((tmp_path / "part0.json").read_text())
    with pytest.raises(UserError, match="id '0' is used twice, in .*part0.json and .*again.json"):
        questions.prepare_files([tmp_path / "part0.json", tmp_path / "again.json"], None, tmp_path / "x")
    with pytest.raises(UserError, match=r"none\*.csv: no file matches it"):
        questions.prepare_files([tmp_path / "none*.csv"], None, tmp_path / "x")


def test_a_table_without_marks_follows_the_version_of_the_other_file(tmp_path):
    answered = [e for e in ROWS if e["answers"]["text"]]
    train, test = (
        write(tmp_path / "train.csv", flat(answered[:12])),
        write(tmp_path / "test.jsonl", ROWS[16:]),
    )
    record = questions.prepare_files(train, test, tmp_path / "o", validation_share=0.3)
    assert record.version == "v2.0" and record.test_by is None


def test_too_few_paragraphs_to_carve_from_are_refused(tmp_path):
    with pytest.raises(UserError, match="a.json: its questions are on 2 paragraphs; .* three are needed"):
        questions.prepare_files(save(tmp_path / "a.json", ROWS[:8]), None, tmp_path / "o")


def test_a_stream_allows_no_answer_where_the_whole_file_does(tmp_path):
    """By the version that the file names, or because another question is marked, even one that stands behind."""
    squad = json.loads(as_squad(ROWS[:4]))
    for article in squad["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                qa.pop("is_impossible", None)
    named = save(tmp_path / "named.json", squad | {"version": "v2.0"})
    marked = [flat(ROWS[:1])[0] | {"id": "last", "answer": "", "answer_start": None, "is_impossible": True}]
    bare = [row | {"is_impossible": None} for row in flat(ROWS[:4])]
    table = write(tmp_path / "marked.csv", bare + marked)
    lines = write(tmp_path / "marked.jsonl", bare + marked)
    shown = [{"header": {}}] + [
        {
            "context": "Ada was here.",
            "qas": [{"qid": name, "question": "Who?", "answers": [], "is_impossible": mark}],
        }
        for name, mark in (("a", None), ("b", True))
    ]
    mrqa = write(tmp_path / "mrqa.jsonl", shown)
    for path in (named, table, lines, mrqa):
        streamed = [question.scored for question in stream_questions(path)]
        assert {e["id"]: e["answers"] for e in streamed} == {
            e["id"]: e["answers"] for e in read_questions(path).examples
        }
        assert not all(e["answers"]["text"] for e in streamed)
    older = save(tmp_path / "older.json", squad | {"version": "v1.1"})
    with pytest.raises(UserError, match="which v1.1 does not allow"):
        list(stream_questions(older))
