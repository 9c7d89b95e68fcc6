"""Questions in every format and shape: the same rows are the same data, and faults are named by file and place."""

import csv
import gzip
import json

import pytest

from common.data import prepared, questions
from common.data.columns import parse
from common.data.question_files import read_questions, stream_questions
from common.errors import UserError
from tests.common.data.test_tables import write

CONTEXTS = [
    f"Tower {n} is {n + 20} metres high. It was built in 19{n:02}; the architect was Ada." for n in range(5)
]


def row(n: int) -> dict:
    context = CONTEXTS[n // 4]
    text = [f"{n // 4 + 20} metres", f"19{n // 4:02}", "Ada", ""][n % 4]
    start = [context.index(text)] if text else []
    return {
        "id": f"q{n}",
        "title": f"tower {n // 8}",
        "context": context,
        "question": f"What is asked {n}?",
        "answers": {"text": [text] if text else [], "answer_start": start},
    }


ROWS = [row(n) for n in range(20)]


def flat(rows=ROWS, **names):
    """Rows with one answer in two columns, and a mark where there is none."""
    return [
        {names.get(key, key): e[key] for key in ("id", "title", "context", "question")}
        | {
            "answer": (e["answers"]["text"] or [""])[0],
            "answer_start": (e["answers"]["answer_start"] or [None])[0],
            "is_impossible": not e["answers"]["text"],
        }
        for e in rows
    ]


def as_squad(rows=ROWS):
    from tests.scripts.conftest import squad_json

    return squad_json(rows)


def save(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), "utf-8")
    return path


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


def test_an_answer_that_stands_nowhere_is_named_and_one_that_stands_often_is_counted(tmp_path):
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
        assert f"a.{kind}: {place}, answer 0: 'mauve' stands nowhere" in found.notes[0]


MRQA = [
    {"header": {"dataset": "Towers", "split": "train"}},
    {
        "context": "[TLE] The Tower [PAR] It is 20 metres high, yes 20 metres.",
        "context_tokens": [["[TLE]", 0]],
        "qas": [
            {
                "qid": "m1",
                "question": "How high?",
                "question_tokens": [["How", 0]],
                "detected_answers": [
                    {"text": "20 Metres", "char_spans": [[28, 36], [48, 56]], "token_spans": [[5, 6], [8, 9]]}
                ],
                "answers": ["20 Metres", "twenty metres"],
            }
        ],
    },
    {"context": "Ada built it.", "qas": [{"qid": "m2", "question": "Who?", "detected_answers": [{"text": "Ada", "char_spans": [[0, 2]]}], "answers": ["Ada"]}]},
]  # fmt: skip


@pytest.mark.parametrize("form", ["auto", "mrqa"])
def test_mrqa(form, tmp_path):
    path = tmp_path / "Towers.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, MRQA)).encode()))
    found = read_questions(path, form=form)
    assert [e["id"] for e in found.examples] == ["m1", "m2"]
    # Scored by the accepted texts, trained on the first span, whose ends are inclusive.
    assert found.examples[0]["answers"] == {"text": ["20 Metres", "twenty metres"], "answer_start": [-1, -1]}
    assert found.placed[0]["answers"] == {"text": ["20 metres"], "answer_start": [28]}
    assert (
        found.examples[1]["answers"] == found.placed[1]["answers"] == {"text": ["Ada"], "answer_start": [0]}
    )
    assert not found.dropped and not found.repaired
    assert [q.scored["id"] for q in stream_questions(path)] == ["m1", "m2"]
    bad = [MRQA[0], MRQA[1] | {"qas": [{"qid": "x", "question": "", "detected_answers": []}]}, {"qas": []}]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, bad)).encode()))
    with pytest.raises(
        UserError, match="2 faults(.|\n)*line 2, id 'x': the question is empty(.|\n)*line 3 has no 'context'"
    ):
        read_questions(path)


HAYSTACK = {
    "documents": [
        {"id": "d1", "content": "Ada built the tower in 1901.", "meta": {"name": "tower.txt"}},
        {"id": 7, "text": "Bob painted it."},
    ],
    "labels": [
        {"id": "l1", "query": "Who built it?", "document_id": "d1", "answer": "Ada", "offset_start_in_doc": 0, "is_correct_answer": True, "origin": "gold_label"},
        {"id": "l2", "query": "Who built it?", "document_id": "d1", "answer": {"answer": "Ada built", "offsets_in_document": [{"start": 0, "end": 9}]}, "is_correct_answer": True},
        {"id": "l3", "query": "Who paid?", "document_id": "d1", "answer": "", "no_answer": True, "is_correct_answer": True},
        {"id": "l4", "question": "Who painted?", "document_id": 7, "answer": "Bob", "offset_start_in_doc": 0},
        {"id": "l5", "question": "Who painted?", "document_id": 7, "answer": "it", "is_correct_answer": False},
    ],
}  # fmt: skip


def test_haystacks_documents_and_labels(tmp_path):
    found = read_questions(save(tmp_path / "a.json", HAYSTACK))
    assert [(e["id"], e["title"], e["answers"]["text"]) for e in found.examples] == [
        ("l1", "tower.txt", ["Ada", "Ada built"]),
        ("l3", "tower.txt", []),
        ("l4", "a 7", ["Bob"]),
    ]
    assert found.version == "v2.0" and not found.repaired and not found.dropped
    own = [{**label, "document": HAYSTACK["documents"][0]} for label in HAYSTACK["labels"][:3]]
    again = read_questions(save(tmp_path / "b.json", own), form="haystack")
    assert [e["answers"] for e in again.examples] == [e["answers"] for e in found.examples[:2]]
    lost = HAYSTACK | {"labels": [{"query": "Who?", "document_id": "d9", "answer": "x"}, 5]}
    with pytest.raises(UserError, match="label 0 names the document 'd9'(.|\n)*label 1 must be an object"):
        read_questions(save(tmp_path / "c.json", lost))


def test_haystacks_export_in_squads_shape(tmp_path):
    content = json.loads(as_squad())
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["document_id"] = 42
            for qa in paragraph["qas"]:
                for answer in qa["answers"]:
                    answer |= {
                        "answer_id": 7,
                        "answer_category": "SHORT",
                        "document_id": 42,
                        "question_id": 3,
                    }
    path = save(tmp_path / "a.json", content)
    assert read_questions(path, form="haystack").examples == read_questions(path).examples == ROWS


def task(n, spans, data=None, **more):
    text = "Ada built the tower. Why? Ada."
    result = [
        {"id": f"r{i}", "from_name": "answer", "to_name": "text", "type": "labels", "value": {"start": s, "end": e, "text": text[s:e], "labels": ["Answer"]}}
        for i, (s, e) in enumerate(spans)
    ]  # fmt: skip
    annotation = {"id": n, "completed_by": 1, "was_cancelled": False, "result": result}
    return {"id": n, "data": data or {"text": text, "question": "Who?"}, "annotations": [annotation]} | more


def test_label_studio(tmp_path):
    second = {
        "result": [{"type": "labels", "value": {"start": 26, "end": 29, "text": "Ada"}}],
        "was_cancelled": False,
    }
    tasks = [task(1, [(0, 3)]), task(2, []), task(3, [(0, 3), (4, 9)])]
    tasks[0]["annotations"] += [second, {"was_cancelled": True, "result": second["result"]}]
    found = read_questions(save(tmp_path / "a.json", tasks))
    assert [(e["id"], e["answers"]["text"]) for e in found.examples] == [
        ("1", ["Ada", "Ada"]),
        ("2", []),
        ("3", ["Ada", "built"]),
    ]
    assert found.examples[0]["answers"]["answer_start"] == [0, 26] and found.version == "v2.0"
    # Other names, and a task that nobody annotated.
    other = [
        task(1, [(0, 3)], {"passage": "Ada built the tower. Why? Ada.", "ask": "Who?"}),
        task(2, [], {"passage": "Bob.", "ask": "Who?"}, annotations=[]),
    ]
    with pytest.raises(UserError, match="task 2, id '2' has no 'answers'"):
        read_questions(save(tmp_path / "b.json", other), columns=parse("question=ask"))
    usable = read_questions(tmp_path / "b.json", "skip", form="label-studio", columns=parse("question=ask"))
    assert [e["question"] for e in usable.examples] == ["Who?"]


def test_label_studio_with_a_question_typed_for_each_span(tmp_path):
    typed = task(5, [(0, 3), (4, 9)], {"text": "Ada built the tower. Why? Ada."})
    typed["annotations"][0]["result"] += [
        {
            "id": "r0",
            "type": "textarea",
            "to_name": "text",
            "value": {"start": 0, "end": 3, "text": ["Who?"]},
        },
        {
            "id": "r1",
            "type": "textarea",
            "to_name": "text",
            "value": {"start": 4, "end": 9, "text": ["What?"]},
        },
    ]
    found = read_questions(save(tmp_path / "a.json", [typed]))
    assert [(e["id"], e["question"], e["answers"]["text"]) for e in found.examples] == [
        ("5-r0", "Who?", ["Ada"]),
        ("5-r1", "What?", ["built"]),
    ]


KO = "\uc138\uc885\ub300\uc655\uc740 1443\ub144 \ud55c\uae00\uc744 \ub9cc\ub4e4\uc5c8\ub2e4."
ZH = "\u9ad8\u5854\u5efa\u4e8e1901\u5e74\uff0c\u9ad820\u7c73\u3002"


def _squad(version, context, text, paragraph=None, answer=None, **article):
    answers = [{"text": text, "answer_start": context.index(text), **(answer or {})}]
    qas = [{"id": "1", "question": "?", "answers": answers}]
    return {
        "version": version,
        "data": [{"paragraphs": [{"context": context, "qas": qas, **(paragraph or {})}], **article}],
    }


SHAPES = {
    "korquad": [
        _squad("KorQuAD_v1.0_train", KO, "1443\ub144", title="\ud55c\uae00"),
        {"version": "KorQuAD_2.0_train", "data": [{"title": "\ud55c\uae00", "url": "u", "raw_html": "<p>", "context": KO, "qas": [
            {"id": "1", "question": "?", "answer": {"text": "1443\ub144", "answer_start": KO.index("1443"), "html_answer_start": 9, "html_answer_text": "<b>1443\ub144</b>"}}]}]},
    ],
    "cmrc": [
        [{"context_id": "T", "context_text": ZH, "title": "\u5854", "qas": [{"query_id": "1", "query_text": "?", "answers": ["1901\u5e74", "1901\u5e74", "1901"]}]}],
        _squad("v1.0", ZH, "1901\u5e74", {"id": "T"}, title="\u5854"),
    ],
    "drcd": [_squad("1.3", ZH, "1901\u5e74", {"id": "1001-1"}, {"id": "1"}, title="\u5854", id="1001")],
    "tydiqa": [_squad("TyDiQA-GoldP-1.1-for-SQuAD-1.1", KO, "1443\ub144")],
    "cuad": [{"version": "aok_v1.0", "data": [{"title": "DEED", "paragraphs": [{"context": "This deed of 1901.", "qas": [
        {"id": "DEED__Date", "question": "Highlight the date", "is_impossible": False, "answers": [{"text": "1901", "answer_start": 13}]},
        {"id": "DEED__Renewal", "question": "Highlight the renewal", "is_impossible": True, "answers": []}]}]}]}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "content"), [(form, each) for form, all_ in SHAPES.items() for each in all_]
)
def test_shapes_of_known_data_sets(form, content, tmp_path):
    path = save(tmp_path / "a.json", content)
    found = read_questions(path, form=form)
    # A shape that is named names the rules that its answers are scored by, where it has its own.
    convention = {e.pop("language", None) for e in found.examples}
    assert convention == ({form} if form in ("cmrc", "korquad") else {None})
    for e in (guessed := read_questions(path).examples):
        e.pop("language", None)
    assert guessed == found.examples
    assert not found.dropped and not found.repaired
    (text, *_), (start, *_) = found.placed[0]["answers"].values()
    assert found.placed[0]["context"].startswith(text, start) and text.startswith(("1901", "1443"))
    assert found.version == ("v2.0" if form == "cuad" else "v1.1")


@pytest.mark.parametrize("lines", [False, True])
def test_plain_lists(lines, tmp_path):
    rows = [["Who?", "Ada built it.", "Ada"], ["When?", "In 1901.", "1901", 3]]
    content = "\n".join(map(json.dumps, rows)) if lines else rows
    found = read_questions(save(tmp_path / ("a.jsonl" if lines else "a.json"), content))
    assert [e["answers"] for e in found.placed] == [
        {"text": ["Ada"], "answer_start": [0]},
        {"text": ["1901"], "answer_start": [3]},
    ]


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        ("mrqa", {"data": []}, "line 1 has no 'context'"),
        (
            "label-studio",
            [{"question": "?", "context": "a", "answer": "a"}],
            "does not have the shape label-studio",
        ),
        ("haystack", {"version": "1"}, "does not have the shape haystack"),
        ("rows", {"version": "1"}, "does not have the shape rows|has no column 'question'"),
        ("squad", [{"question": "?", "context": "a", "answer": "a"}], "which is not a known shape"),
        ("klingon", [], "--format 'klingon': choose one of auto, rows"),
    ],
)
def test_a_form_that_is_named_and_not_there_is_refused(form, content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_questions(save(tmp_path / "a.json", content), form=form)


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
