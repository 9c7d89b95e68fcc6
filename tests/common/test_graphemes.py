import unicodedata
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.graphemes import cuts, widened
from tests.support.odd import CLUSTERS, INVISIBLE, texts


@pytest.mark.parametrize(
    "text", ["", "Plain English.", "a line\nand another", "Zürich – 90 °C", "心臓", "שלום"]
)
def test_texts_that_may_be_cut_everywhere_cost_nothing(text):
    assert cuts(text) is None


@pytest.mark.parametrize("cluster", CLUSTERS + INVISIBLE)
def test_a_character_as_readers_see_it_is_cut_at_its_ends_alone(cluster):
    text = f"ab{cluster}c"
    before, after = cuts(text) or (np.arange(len(text) + 1),) * 2
    inside = range(3, 2 + len(cluster))
    assert all(before[i] == 2 and after[i] == 2 + len(cluster) for i in inside)
    end = 2 + len(cluster)
    assert before[end] == after[end] == end and before[2] == 2


@pytest.mark.parametrize("mark", ["\u200f", "\u00ad", "\ufeff"])
def test_a_part_ends_behind_a_format_character_and_begins_at_it(mark):
    before, after = cuts(f"ab{mark}c")
    assert after[2] == 3 and before[2] == 2 and before[3] == 3


def test_a_zero_width_space_parts_words():
    before, after = cuts("ab\u200bc\u00ad")
    assert after[2] == before[2] == 2 and after[3] == before[3] == 3


@given(texts())
def test_what_is_widened_is_whole(parts):
    text = "".join(parts)
    spans = np.array([(b, e) for b in range(len(text) + 1) for e in range(b, len(text) + 1)])
    wide = widened(spans, cuts(text))
    same = wide[:, 0] == wide[:, 1]
    assert (same == (spans[:, 0] == spans[:, 1])).all() and (wide[same] == spans[same]).all()
    assert (wide[:, 0] <= spans[:, 0]).all() and (wide[:, 1] >= spans[:, 1]).all()
    # Some of the parts join, as letters of jamo do; between others nothing is new.
    assert set(wide.flatten()) <= {0, *accumulate(map(len, parts))} | set(spans[same].flatten())
    for end in wide[~same, 1]:
        assert end == len(text) or unicodedata.category(text[end]) not in ("Mn", "Mc", "Me")


@given(st.text())
def test_any_text_has_cuts(text):
    found = cuts(text)
    if found is not None:
        assert all(len(each) == len(text) + 1 and (np.diff(each) >= 0).all() for each in found)
