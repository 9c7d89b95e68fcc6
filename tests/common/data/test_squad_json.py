import copy
import functools
import gzip
import json
import operator
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.squad_json import read_squad_json
from common.errors import UserError

CONTEXT = "Bees dance. The angle of the dance tells where flowers are; other bees follow the angle."


def qa(id_="q1", text="flowers", start=None, **more):
    start = CONTEXT.index(text) if start is None else start
    return {"id": id_, "question": "What?", "answers": [{"text": text, "answer_start": start}], **more}


def squad(*qas, version="1.1", context=CONTEXT, title="Bees"):
    return {
        "version": version,
        "data": [{"title": title, "paragraphs": [{"context": context, "qas": list(qas)}]}],
    }


@pytest.fixture
def write(tmp_path):
    def write_(content):
        file = tmp_path / "data.json"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return file

    return write_


def test_a_good_file_is_read_as_it_is(write):
    found = read_squad_json(write(squad(qa(), qa("q2", "Bees dance"))))
    assert (found.version, found.repaired, found.dropped) == ("v1.1", 0, 0)
    assert found.examples[1] == {
        "id": "q2",
        "title": "Bees",
        "context": CONTEXT,
        "question": "What?",
        "answers": {"text": ["Bees dance"], "answer_start": [0]},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"   \n", "is empty"),
        (b'{"data": [', "line 1, column"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"[1]", "is a list of records with int"),
        (b"5", "the top must be a list"),
        (
            [{"premise": "a", "label": 1}],
            "a list of records with 'premise', 'label', which is not a known shape",
        ),
        (b"[" * 100_000, "valid JSON|nested"),
        (json.dumps(squad(qa())).encode("utf-16-le"), "UTF-16 without a byte-order mark"),
        (gzip.compress(json.dumps(squad(qa())).encode(), mtime=0)[:60], "damaged gzip"),
        (b"PK\x03\x04rest", "a zip archive; unpack it"),
        (b"PAR1rest", "it is Parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer.*git lfs pull"),
        ('{"data": "Zürich"}'.encode("latin-1"), "byte 11 is 0xfc"),
        ({"version": "1.1"}, "no 'data' at the top"),
        ({"data": []}, "there is no question in it"),
        ({"documents": [{"id": "d", "content": CONTEXT}], "labels": []}, "there is no question in it"),
        ({"data": {}}, "'data' must be a list"),
        ({"data": [{"paragraphs": []}]}, "no usable question"),
        ({"data": [{"title": "T", "paragraphs": 3}]}, "'paragraphs' must be a list"),
        ({"data": [{"title": "T", "paragraphs": [{"context": "C", "qas": 3}]}]}, "'qas' must be a list"),
        ({"data": [{"title": "T"}]}, "article 0 \\('T'\\) has no 'paragraphs'"),
        ({"data": [{"title": "T", "paragraphs": [{"qas": []}]}]}, "paragraph 0 has no 'context'"),
        (squad(context=" \n"), "paragraph 0: the context is empty"),
        (squad({"id": "q1", "answers": []}), "id 'q1' has no 'question'"),
        (squad({"id": "q1", "question": " ", "answers": []}), "id 'q1': the question is empty"),
        (squad({"id": "q1", "question": "What?"}), "id 'q1' has no 'answers'"),
        (squad({"id": "q1", "question": "What?", "answers": []}), "id 'q1' has no answers"),
        (squad(qa(text="flowers", start="x")), "'answer_start' must be a whole number"),
        (squad(qa(text="flowers", start=1.5)), "'answer_start' must be a whole number"),
        (squad(qa(is_impossible="perhaps")), "'is_impossible' must be true or false"),
        (squad(qa(text="flowers", start=True)), "'answer_start' must be a whole number"),
        (squad({**qa(), "answers": [{"text": "", "answer_start": 0}]}), "the text of each answer is empty"),
        (squad(qa(), qa()), "id 'q1': this id is already used"),
        (squad(qa(is_impossible=True), version="v2.0"), "marked is_impossible and has answers"),
        (squad(), "no usable question"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_place(content, message, write):
    file = write(content)
    with pytest.raises(UserError, match=message) as caught:
        read_squad_json(file)
    assert str(file) in str(caught.value)


def test_folders_and_missing_files_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_squad_json(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        read_squad_json(tmp_path / "nowhere.json")


def test_a_wrong_start_is_repaired_where_the_text_stands(write):
    """At its one place, or at the one of several that is nearest; what is not found is scored and not trained on."""
    last = CONTEXT.rindex("angle")
    found = read_squad_json(
        write(squad(qa("once", "flowers", 3), qa("twice", "angle", last + 1), qa("never", "honey", 0)))
    )
    assert [e["id"] for e in found.placed] == ["once", "twice"]
    assert [e["answers"]["answer_start"] for e in found.placed] == [[CONTEXT.index("flowers")], [last]]
    assert found.examples[2]["answers"] == {"text": ["honey"], "answer_start": [-1]}
    assert (found.repaired, found.dropped) == (2, 1)
    assert "'never'" in found.notes[0] and "neither at 0 nor elsewhere" in found.notes[0]


def test_what_annotation_tools_export_is_read(write):
    """No titles, whole numbers for ids, further keys, offsets as text, an empty answer beside a good one."""
    good = {"text": "flowers", "answer_start": str(CONTEXT.index("flowers")), "answer_id": 7}
    rows = [
        {
            "id": 0,
            "question": "Q?",
            "answers": [good, {"text": "", "answer_start": -1}],
            "is_impossible": False,
        },
        {"question": "Q?", "answers": good, "is_impossible": "false"},
    ]
    found = read_squad_json(write({"data": [{"paragraphs": [{"context": CONTEXT, "qas": rows}], "meta": 1}]}))
    first, second = (e["id"] for e in found.examples)
    assert first == "0" and second.startswith("data-0-0-1-")
    assert {e["title"] for e in found.examples} == {"data 0"}
    assert found.placed[0]["answers"]["text"] == ["flowers"]
    assert found.examples[0]["answers"]["text"] == ["flowers", ""]
    assert found.counts == {"made_titles": 1, "made_ids": 1, "empty_answers": 1} and found.version == "v1.1"


def test_an_impossible_question_may_have_an_answer_without_text(write):
    impossible = qa("q2", "", 0, is_impossible=True)
    assert read_squad_json(write(squad(qa(), impossible))).examples[1]["answers"] == {
        "text": [],
        "answer_start": [],
    }


@pytest.mark.parametrize("version", ["2020-04-23", "20", None, "1.1", "KorQuAD_2.0_train"])
def test_a_date_is_no_version_2(version, write):
    assert read_squad_json(write(squad(qa(is_impossible=False), version=version))).version == "v1.1"


def test_other_shapes_are_the_same_questions(write):
    expected = read_squad_json(write(squad(qa(), qa("q2", "Bees dance")))).examples
    rows = [
        {**e, "answers": {"text": e["answers"]["text"], "answer_start": e["answers"]["answer_start"]}}
        for e in expected
    ]
    cmrc = [
        {
            "context_id": "c",
            "title": "Bees",
            "context_text": CONTEXT,
            "qas": [
                {"query_id": e["id"], "query_text": e["question"], "answers": e["answers"]["text"]}
                for e in expected
            ],
        }
    ]
    korquad = [
        {"id": e["id"], "question": e["question"], "answer": {"text": t, "answer_start": s}}
        for e in expected
        for t, s in [(e["answers"]["text"][0], e["answers"]["answer_start"][0])]
    ]
    korquad = {"data": [{"title": "Bees", "context": CONTEXT, "qas": korquad}]}
    for content in (rows, {"data": rows}, cmrc, korquad):
        assert read_squad_json(write(content)).placed == expected


def test_all_faults_are_listed_and_can_be_skipped(write):
    bad = [{**qa(f"bad{n}"), "question": ""} for n in range(25)]
    file = write(squad(qa(), *bad))
    with pytest.raises(UserError) as caught:
        read_squad_json(file)
    lines = str(caught.value).splitlines()
    assert "25 faults" in lines[0] and "--on_bad_rows skip" in lines[0] and len(lines) == 22
    assert "'bad0': the question is empty" in lines[1] and lines[-1].endswith("and 5 more")
    found = read_squad_json(file, on_bad_rows="skip")
    assert [e["id"] for e in found.examples] == ["q1"] and len(found.skipped) == 25
    assert found.skipped[0]["reason"] == ": the question is empty."


@pytest.mark.parametrize(
    "encoded",
    [lambda text: gzip.compress(text.encode(), mtime=0), lambda text: text.encode("utf-16")],
    ids=["gzip", "utf-16"],
)
def test_gzip_and_utf_16_are_read(encoded, write):
    assert read_squad_json(write(encoded(json.dumps(squad(qa()))))).examples


def test_unanswerable_questions_make_it_v2(write):
    impossible = {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True}
    for version in ("v2.0", "anything"):
        found = read_squad_json(write(squad(qa(), impossible, version=version)))
        assert found.version == "v2.0" and found.examples[1]["answers"] == {"text": [], "answer_start": []}


def test_version_1_2_is_not_version_2(write):
    assert read_squad_json(write(squad(qa(), version="1.2"))).version == "v1.1"


def test_a_byte_order_mark_is_no_fault(write):
    assert read_squad_json(write(b"\xef\xbb\xbf" + json.dumps(squad(qa())).encode())).examples


@given(
    before=st.text(st.characters(codec="utf-8"), max_size=30),
    answer=st.text(st.characters(codec="utf-8"), min_size=1, max_size=10),
)
def test_offsets_are_in_characters_whatever_the_text(before, answer, tmp_path_factory):
    if not answer.strip():
        return
    context = before + answer + "\r\n tail"
    file = tmp_path_factory.mktemp("squad") / "data.json"
    content = squad(
        {"id": "q", "question": "What?", "answers": [{"text": answer, "answer_start": len(before)}]},
        context=context,
    )
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8", newline="")
    (example,) = read_squad_json(file).examples
    assert example["context"] == context and example["answers"]["answer_start"] == [len(before)]


def test_made_ids_of_files_of_one_name_differ(tmp_path):
    made = []
    for folder, question in (("train", "Who?"), ("test", "Where?"), ("again", "Who?")):
        (tmp_path / folder).mkdir()
        row = {"question": question, "answers": [{"text": "Bees", "answer_start": 0}]}
        content = {"data": [{"paragraphs": [{"context": "Bees dance", "qas": [row]}]}]}
        (tmp_path / folder / "data.json").write_text(json.dumps(content))
        made.append(read_squad_json(tmp_path / folder / "data.json").examples[0]["id"])
    assert made[0] != made[1] and made[0] == made[2]


def test_flat_rows_without_answers_are_unanswerable(write):
    """As the hub's squad_v2 has them: no is_impossible, an empty list of texts."""
    row = {
        "id": "1",
        "context": CONTEXT,
        "question": "Q?",
        "answers": {"text": ["Bees"], "answer_start": [0]},
    }
    none = row | {"id": "2", "answers": {"text": [], "answer_start": []}}
    for content in ([row, none], {"data": [row, none]}):
        found = read_squad_json(write(content))
        assert found.version == "v2.0" and [len(e["answers"]["text"]) for e in found.placed] == [1, 0]


@pytest.mark.parametrize("mark", [True, 1, "1", "true", "TRUE"])
def test_a_mark_makes_it_v2_however_it_is_written(mark, write):
    impossible = qa("q2", is_impossible=mark) | {"answers": []}
    found = read_squad_json(write(squad(qa(), impossible, version=None)))
    assert found.version == "v2.0" and found.examples[1]["answers"]["text"] == []


def test_rows_may_stand_one_a_line(write):
    row = {
        "id": "1",
        "context": CONTEXT,
        "question": "Q?",
        "answers": {"text": ["Bees"], "answer_start": [0]},
    }
    lines = "\n".join(json.dumps(row | {"id": str(n)}) for n in range(3)) + "\n"
    assert [e["id"] for e in read_squad_json(write(lines.encode())).placed] == ["0", "1", "2"]


@pytest.mark.parametrize("qas", [5, None, {"a": 1}])
@pytest.mark.parametrize("name", ["context", "context_text"])
def test_other_shapes_with_no_list_of_questions_are_refused_by_place(name, qas, write):
    with pytest.raises(UserError, match="paragraph 0: 'qas' must be a list"):
        read_squad_json(write([{"title": "T", name: CONTEXT, "qas": qas}]))


def test_a_number_of_thousands_of_digits_is_refused(write):
    with pytest.raises(UserError, match="thousands of digits"):
        read_squad_json(write(b'{"data": ' + b"9" * 5000 + b"}"))


@pytest.mark.parametrize("start", ["4.0", " 4 ", 4.0, "", None, -1, "-1", float("nan")])
def test_a_start_may_be_text_or_missing(start, write):
    at = CONTEXT.index("flowers")
    given = str(start).replace("4", str(at)) if isinstance(start, str) else at if start == 4 else start
    found = read_squad_json(write(squad(qa() | {"answers": [{"text": "flowers", "answer_start": given}]})))
    assert found.placed[0]["answers"] == {"text": ["flowers"], "answer_start": [at]}


@pytest.mark.parametrize("answers", [None, [], {}, [""], [{"text": None}], {"text": [], "answer_start": []}])
def test_an_impossible_question_may_have_no_answers_in_any_form(answers, write):
    found = read_squad_json(write(squad(qa() | {"answers": answers, "is_impossible": True})))
    assert found.version == "v2.0" and found.examples[0]["answers"]["text"] == []


def test_half_a_surrogate_pair_is_a_fault_wherever_it_stands(write):
    """Nothing can be stored that has one, answers that are scored alone included."""
    bad = qa("q2") | {"answers": [{"text": "\ud83d", "answer_start": 0}]}
    file = write(squad(qa("q1"), bad, qa("q3") | {"question": "\udc1d?"}))
    with pytest.raises(UserError, match="has 2 faults(.|\n)*'q2': .*surrogate(.|\n)*'q3': .*surrogate"):
        read_squad_json(file)
    assert len(read_squad_json(file, "skip").examples) == 1


@pytest.mark.parametrize("answer", ["flowers", {"text": "flowers", "answer_start": CONTEXT.index("flowers")}])
@pytest.mark.parametrize("flat", [False, True])
def test_a_single_answer_may_be_called_answer(answer, flat, write):
    question = {"id": "q1", "question": "What?", "answer": answer}
    found = read_squad_json(write([question | {"context": CONTEXT}] if flat else squad(question)))
    assert found.placed[0]["answers"] == {"text": ["flowers"], "answer_start": [CONTEXT.index("flowers")]}


def _places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


ROW = qa() | {"context": CONTEXT, "answers": {"text": ["flowers"], "answer_start": [3]}}
SHAPES = [
    squad(qa(), qa("q2") | {"is_impossible": False}),
    {"data": [ROW]},
    [ROW],
    [{"context_text": CONTEXT, "qas": [{"query_id": "a", "query_text": "?", "answers": ["flowers"]}]}],
    {
        "data": [
            {"title": "t", "context": CONTEXT, "qas": [{"id": "a", "question": "?", "answer": "flowers"}]}
        ]
    },
]
SHAPES += [
    {"documents": [{"id": "d", "content": CONTEXT}], "labels": [{"query": "?", "answer": "flowers", "document_id": "d"}]},
    [{"query": "?", "answer": {"answer": "flowers", "offsets_in_document": [{"start": 1}]}, "document": {"id": 1, "text": CONTEXT}}],
    [{"id": 1, "data": {"text": CONTEXT, "question": "?"}, "annotations": [{"result": [{"value": {"start": 0, "end": 4, "text": "Bees"}}]}]}],
    [{"data": {"text": CONTEXT}, "annotations": [{"result": [
        {"id": "r", "value": {"start": 0, "end": 4}}, {"id": "r", "type": "textarea", "value": {"text": ["Who?"]}}]}]}],
    [["?", CONTEXT, "flowers"], ["?", CONTEXT, "Bees", 0]],
]  # fmt: skip
ODD = [None, True, 0, -3, 10**30, 1.5, float("inf"), "", " ", "x", "\ud83d", [], [None], [[]], {}, {"a": 1}]


@given(st.sampled_from(SHAPES), st.data())
def test_whatever_stands_anywhere_is_read_or_refused_in_a_line(shape, drawn):
    content = copy.deepcopy(shape)
    for _ in range(drawn.draw(st.integers(1, 2))):
        path = drawn.draw(st.sampled_from([path for path in _places(content) if path] or [()]))
        if not path:
            break
        *above, last = path
        holder = functools.reduce(operator.getitem, above, content)
        if drawn.draw(st.booleans()) or isinstance(holder, list):
            holder[last] = copy.deepcopy(drawn.draw(st.sampled_from(ODD)))
        else:
            del holder[last]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "odd.json"
        file.write_text(json.dumps(content))
        for on_bad_rows in ("error", "skip"):
            try:
                found = read_squad_json(file, on_bad_rows)
            except UserError as refused:
                assert str(file) in str(refused)
                continue
            for example in found.placed:
                for text, start in zip(*example["answers"].values(), strict=True):
                    assert start >= 0 and example["context"].startswith(text, start) and text.strip()
            json.dumps(found.examples, ensure_ascii=False).encode()
