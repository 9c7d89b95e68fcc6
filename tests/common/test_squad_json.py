import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.squad_json import read_squad_json

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
        (b"[1]", "must be an object"),
        (b"[" * 100_000, "valid JSON|nested"),
        (json.dumps(squad(qa())).encode("utf-16"), "not UTF-8"),
        ('{"data": "Zürich"}'.encode("latin-1"), "byte 11 is 0xfc"),
        ({"version": "1.1"}, "no 'data'"),
        ({"data": []}, "'data' is empty"),
        ({"data": {}}, "'data' must be a list"),
        ({"data": [{"paragraphs": []}]}, "article 0 has no 'title'"),
        ({"data": [{"title": "T", "paragraphs": 3}]}, "'paragraphs' must be a list"),
        ({"data": [{"title": "T", "paragraphs": [{"context": "C", "qas": 3}]}]}, "'qas' must be a list"),
        ({"data": [{"title": "T"}]}, "article 0 \\('T'\\) has no 'paragraphs'"),
        ({"data": [{"title": "T", "paragraphs": [{"qas": []}]}]}, "paragraph 0 has no 'context'"),
        (squad(context=" \n"), "paragraph 0: the context is empty"),
        (squad({"question": "?", "answers": []}), "question 0 has no 'id'"),
        (squad({"id": "q1", "answers": []}), "id 'q1' has no 'question'"),
        (squad({"id": "q1", "question": " ", "answers": []}), "id 'q1': the question is empty"),
        (squad({"id": "q1", "question": "What?"}), "id 'q1' has no 'answers'"),
        (squad({"id": "q1", "question": "What?", "answers": []}), "id 'q1' has no answers"),
        (squad(qa(text="flowers", start="3")), "'answer_start' must be a whole number"),
        (squad(qa(text="flowers", start=True)), "'answer_start' must be a whole number"),
        (squad({**qa(), "answers": [{"text": "", "answer_start": 0}]}), "answer 0: the text is empty"),
        (squad(qa(), qa()), "id 'q1': this id stands"),
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


def test_a_wrong_start_is_repaired_only_where_the_text_stands_once(write):
    found = read_squad_json(
        write(squad(qa("once", "flowers", 3), qa("twice", "angle", 0), qa("never", "honey", 0)))
    )
    assert [e["id"] for e in found.examples] == ["once"]
    assert found.examples[0]["answers"]["answer_start"] == [CONTEXT.index("flowers")]
    assert (found.repaired, found.dropped) == (1, 2)
    assert "'twice'" in found.notes[0] and "more than once" in found.notes[0]
    assert "'never'" in found.notes[1] and "nowhere" in found.notes[1]


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
