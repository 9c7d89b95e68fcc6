"""The file of corrected answers: SQuAD that is read again, whole whoever writes, and never anybody else's file."""

import json
import multiprocessing
import threading

import pytest

from common.data.squad_json import read_squad_json
from common.errors import UserError
from common.page import corrections
from common.page.corrections import Correction, Corrections, Full, Occupied

CONTEXT = "😀 Marie and Pierre Curie shared it."
ANSWERED = {"text": "Pierre", "start": 12, "time": "2026-01-01T00:00:00+00:00"}


def correction(text="Marie", question="Who shared it?", context=CONTEXT, **more):
    start = context.index(text) if text else -1
    return Correction(question, context, text, start, "models:/m/3", ANSWERED, **more)


def questions(file):
    content = json.loads(file.read_text("utf-8"))
    return [
        qa for article in content["data"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]
    ]


@pytest.fixture
def kept(tmp_path):
    return Corrections(tmp_path / "corrections.json")


def test_what_is_kept_is_squad_with_where_it_comes_from(kept):
    assert not kept.file.exists()
    kept.add(correction())
    kept.add(correction("", question="When?", language="de"))
    kept.add(correction("b", context="a b"))
    found = read_squad_json(kept.file)
    assert found.version == "v2.0" and not found.repaired and not found.dropped and not found.notes
    read = [(e["question"], e["context"], e["answers"], e.get("language")) for e in found.placed]
    assert read == [
        ("Who shared it?", CONTEXT, {"text": ["Marie"], "answer_start": [2]}, None),
        ("When?", CONTEXT, {"text": [], "answer_start": []}, "de"),
        ("Who shared it?", "a b", {"text": ["b"], "answer_start": [2]}, None),
    ]
    # Contexts are divided as articles are.
    assert [e["title"] == found.placed[0]["title"] for e in found.placed] == [True, True, False]
    first = questions(kept.file)[0]
    assert first["correction"].pop("time") > "2026"
    assert first["correction"] == {"model": "models:/m/3", "answered": ANSWERED, "times": 1}
    assert set(first) == {"id", "question", "is_impossible", "answers", "correction"}


def test_a_question_that_is_corrected_again_stands_once_and_is_counted(kept):
    assert kept.add(correction("Pierre")) == 1
    kept.add(correction("", question="When?"))
    assert kept.add(correction("Marie")) == 2
    assert [qa["question"] for qa in questions(kept.file)] == ["When?", "Who shared it?"]
    again = questions(kept.file)[1]
    assert again["answers"] == [{"text": "Marie", "answer_start": 2}] and again["correction"]["times"] == 2


def test_a_question_that_an_earlier_version_kept_stands_once_too(kept):
    kept.add(correction("Pierre"))
    content = json.loads(kept.file.read_text())
    content["data"][0]["paragraphs"][0]["qas"][0]["id"] = "of another rule"
    kept.file.write_text(json.dumps(content))
    assert kept.add(correction("Marie")) == 2
    assert [qa["answers"][0]["text"] for qa in questions(kept.file)] == ["Marie"]


def test_line_ends_within_a_question_or_a_context_tell_two_questions_apart(kept):
    kept.add(correction("X", question="Z", context="X\nY"))
    kept.add(correction("X", question="Y\nZ", context="X"))
    found = read_squad_json(kept.file).placed
    assert [(e["context"], e["question"]) for e in found] == [("X\nY", "Z"), ("X", "Y\nZ")]
    assert len({e["id"] for e in found}) == 2


def add_many(file, writer):
    kept = Corrections(file)
    for n in range(8):
        kept.add(correction(question=f"{writer}-{n}?"))


def test_writers_at_once_lose_nothing(kept):
    """Three processes, one of them with two threads."""
    started = multiprocessing.get_context("fork")
    processes = [started.Process(target=add_many, args=(kept.file, n)) for n in range(2)]
    threads = [threading.Thread(target=add_many, args=(kept.file, n)) for n in (2, 3)]
    for each in (*processes, *threads):
        each.start()
    for each in (*processes, *threads):
        each.join(60)
    assert {qa["question"] for qa in questions(kept.file)} == {
        f"{w}-{n}?" for w in range(4) for n in range(8)
    }
    assert len(questions(kept.file)) == 32


def test_a_write_that_fails_leaves_the_file_as_it_was(kept, monkeypatch):
    kept.add(correction())
    before = kept.file.read_bytes()

    def full_disk(self, *_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full_disk)
        with pytest.raises(OSError, match="No space left"):
            kept.add(correction("", question="When?"))
    assert kept.file.read_bytes() == before
    kept.add(correction("", question="When?"))
    assert len(questions(kept.file)) == 2
    assert sorted(path.name for path in kept.file.parent.iterdir()) == [
        ".corrections.json.lock",
        "corrections.json",
    ]


def test_a_full_file_takes_no_more(kept, monkeypatch):
    kept.add(correction())
    before = kept.file.read_bytes()
    monkeypatch.setattr(corrections, "MAX_BYTES", len(before) + 10)
    with pytest.raises(Full):
        kept.add(correction(question="When?"))
    assert kept.file.read_bytes() == before


def test_a_file_is_full_by_what_is_written(kept, monkeypatch):
    kept.add(correction())
    monkeypatch.setattr(corrections, "MAX_BYTES", kept.file.stat().st_size)
    assert Corrections(kept.file).add(correction()) == 2
    monkeypatch.setattr(corrections, "MAX_BYTES", kept.file.stat().st_size - 1)
    with pytest.raises(Full):
        kept.add(correction())


def test_a_writer_that_does_not_end_keeps_nobody_waiting(kept, monkeypatch):
    monkeypatch.setattr(corrections, "PATIENCE", 0.05)
    with kept._alone():
        with pytest.raises(Occupied):
            kept.add(correction())
        with pytest.raises(UserError, match="another process"):
            Corrections(kept.file)
    assert kept.add(correction()) == 1


OTHERS = {
    "own questions": '{"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "a", "qas": []}]}]}',
    "no JSON": "notes",
    "a list": "[1]",
    "odd articles": '{"source": "corrections", "data": ["a"]}',
    "no list": '{"source": "corrections", "data": 5}',
    "odd questions": '{"source": "corrections", "data": [{"paragraphs": [{"context": "a", "qas": [{"id": 1}]}]}]}',
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_file_is_left_as_it_is(tmp_path, name):
    file = tmp_path / "train.json"
    file.write_text(OTHERS[name])
    with pytest.raises(UserError, match=r"train.json holds something else.*does not exist yet"):
        Corrections(file)
    assert file.read_text() == OTHERS[name]


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path):
    with pytest.raises(UserError, match="--corrections .*none/c.json cannot be written"):
        Corrections(tmp_path / "none" / "c.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder is a folder"):
        Corrections(tmp_path / "folder")
