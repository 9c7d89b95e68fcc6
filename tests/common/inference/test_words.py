"""Words of a text by its tokenizer, and spans that reach to their ends."""

import pytest

from common.inference.words import aligned, widened, words
from tests.support.tokenizers import make_tokenizer

TEXT = "The heart pumps  blood-cells through the bodyheart."


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "modernbert"])
def test_words_are_those_of_the_tokenizer(family):
    found = words(make_tokenizer(family), TEXT)
    texts = [TEXT[a:b] for a, b in found]
    assert texts[:2] == ["The", "heart"] and not any(" " in text for text in texts)
    assert "".join(texts) == TEXT.replace(" ", "")


def test_a_text_that_is_left_whole_has_no_words():
    tokenizer = make_tokenizer("bert")
    from tokenizers.pre_tokenizers import PreTokenizer

    class Whole:
        def pre_tokenize(self, _):
            pass

    tokenizer.backend_tokenizer.pre_tokenizer = PreTokenizer.custom(Whole())
    assert words(tokenizer, TEXT) == []


def test_a_span_is_widened_to_the_words_that_it_touches():
    places = [(0, 3), (4, 9), (10, 15), (16, 17)]
    assert widened(5, 8, places) == (4, 9)
    assert widened(1, 11, places) == (0, 15)
    assert widened(4, 9, places) == (4, 9)
    # Between words there is nothing to reach.
    assert widened(3, 4, places) == (3, 4) and widened(20, 22, places) == (20, 22)
    assert widened(5, 8, []) == (5, 8)


def test_candidates_that_become_one_have_the_sum():
    places = [(0, 5), (6, 10)]
    assert aligned([(0, 2, 0.5), (6, 10, 0.25), (3, 5, 0.125), (-1, -1, 0.1)], places) == [
        (0, 5, 0.625),
        (6, 10, 0.25),
        (-1, -1, 0.1),
    ]
