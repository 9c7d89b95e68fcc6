"""Shapes of known data sets, found by their content or named by the user."""

import gzip
import json

import pytest

from common.data.question_files import read_questions, stream_questions
from common.errors import UserError
from tests.support.question_rows import save

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
