"""What questions are drawn in as a whole."""

from types import SimpleNamespace

import pytest

from common.tasks.table import TASKS

EXAMPLES = [
    {"title": title, "context": context}
    for title, context in (("A", "one"), ("A", "two"), ("B", "three"), ("C", "two"))
]


def record(by, made_titles=0):
    return SimpleNamespace(validation_by=by, made_titles=made_titles)


@pytest.mark.parametrize("by", ["article", "given"])
def test_questions_of_an_article_are_a_group(by):
    """Articles with a paragraph in common are one."""
    assert TASKS["extractive-qa"].groups(EXAMPLES, record(by)) == ["A", "A", "B", "A"]


def test_paragraphs_are_groups_where_validation_was_drawn_by_paragraph():
    assert TASKS["generative-qa"].groups(EXAMPLES, record("paragraph")) == ["one", "two", "three", "two"]


def test_paragraphs_are_groups_where_no_question_has_a_title():
    untitled = [{**example, "title": "made"} for example in EXAMPLES]
    groups = TASKS["extractive-qa"].groups
    assert groups(untitled, record("given", made_titles=1)) == ["one", "two", "three", "two"]
    # Of a single article nothing can be said of other articles.
    assert set(groups(untitled, record("article"))) == {"made"}


def test_texts_are_drawn_one_by_one():
    assert TASKS["classification"].groups([{"text": "a"}], record(None)) is None
