"""Columns by the names that are given, or by the usual ones."""

import pytest

from common.data.columns import Fields, parse, resolve
from common.errors import UserError

QUESTIONS = ("question", "context", "answers")


@pytest.mark.parametrize(
    ("columns", "given", "found"),
    [
        (["question", "context", "answers"], {}, ["question", "context", "answers"]),
        (["Context", "QUESTION", "id", "answer_start", "text"], {}, ["QUESTION", "Context", "text"]),
        (["query", "passage", "answer"], {}, ["query", "passage", "answer"]),
        (["question", "text", "answer"], {}, ["question", "text", "answer"]),
        (["q1", "question", "t", "a"], {"question": "q1", "context": "t", "answers": "a"}, ["q1", "t", "a"]),
        (["question", "text", "context"], {"answers": "context"}, ["question", "text", "context"]),
        (["Frage", "context", "answer"], {"question": "frage"}, ["Frage", "context", "answer"]),
    ],
)
def test_columns_of_questions(columns, given, found):
    assert resolve(columns, QUESTIONS, given) == dict(zip(QUESTIONS, found, strict=True))


def test_what_is_missing_is_named_with_what_there_is():
    assert resolve(["a", "question"], QUESTIONS) == (
        " has no column 'context' (or passage, paragraph, document, context_text, article, text); "
        "its columns are 'a', 'question'."
    )
    assert "has no column 'c', which --columns gives for context" in resolve(
        ["a"], ("context",), {"context": "c"}
    )
    assert resolve([], ("label",)).endswith("its columns are none.")
    assert resolve(["text"], ("text",), optional=("label",)) == {"text": "text"}
    assert "--columns gives for label" in resolve(["text"], ("text",), {"label": "y"}, optional=("label",))


def test_the_flag_is_parsed():
    assert parse("question=q, context = my text,answer=a") == {
        "question": "q",
        "context": "my text",
        "answers": "a",
    }
    assert parse(None) == parse("") == {}
    assert parse({"answer": "a, b = c"}) == {"answers": "a, b = c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question", "is not FIELD=COLUMN"),
        ("question=", "is not FIELD=COLUMN"),
        ("colour=c", "no field 'colour'; fields are question, context"),
        ("answer=a,answers=b", "answers is given twice"),
    ],
)
def test_a_bad_flag_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse(text)


def test_rows_with_other_keys_are_resolved_one_by_one():
    fields = Fields(("text", "label"))
    assert fields.of({"review": "a", "class": 1}) == {"text": "a", "label": 1}
    assert fields.of({"text": "a", "label": 0}) == {"text": "a", "label": 0}
    assert fields.of({"text": "a"}).startswith(" has no column 'label'")
