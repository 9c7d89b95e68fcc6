import pytest

from common.counts import count_of


@pytest.mark.parametrize(
    ("n", "words", "text"),
    [
        (0, ["questions"], "0 questions"),
        (1, ["questions"], "1 question"),
        (1.0, ["test texts"], "1 test text"),
        (1054, ["questions"], "1,054 questions"),
        (1, ["texts were left out", "text was left out"], "1 text was left out"),
        (2, ["texts were left out", "text was left out"], "2 texts were left out"),
    ],
)
def test_one_thing_is_named_in_the_singular(n, words, text):
    assert count_of(n, *words) == text
