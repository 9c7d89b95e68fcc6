import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.data.answer_places import first_whole, place, places


@pytest.mark.parametrize(
    ("context", "text", "start", "found"),
    [
        ("red and red", "red", 8, "8"),
        ("red and red", "red", 7, "8"),
        ("red and red", "red", 1, "0"),
        ("red and blue", "green", 0, None),
        ("\N{HONEYBEE}\N{HONEYBEE} dance at noon", "dance", 5, "3"),
        ("in\N{NO-BREAK SPACE}1903  Marie", "in 1903 marie", 0, "0"),
        ("Caf\N{LATIN SMALL LETTER E WITH ACUTE} Central", "cafe\N{COMBINING ACUTE ACCENT} central", 0, "0"),
        ("die Stra\N{LATIN SMALL LETTER SHARP S}e hier", "STRASSE", 4, "4"),
        ("a \N{LATIN SMALL LIGATURE FI}ne day", "ine", 3, None),
        ("text", " ", 0, None),
        ("Red boats meet. The hull is red.", "red", 0, "0"),
        ("Red boats meet. The hull is red.", "red", 1, "0"),
        ("Red boats meet. The hull is red.", "red", 27, "28"),
        ("Us and US", "US", 5, "7"),
        ("Us and US", "US", 3, "7"),
        ("Us and US", "US", 2, "0"),
        ("a\N{HONEYBEE} Red boat, a red boat", "red", 4, "3"),
    ],
)
def test_places(context, text, start, found):
    at = place(context, text, start)
    assert (None if at is None else str(at[0])) == found


@pytest.mark.parametrize(
    ("context", "text", "found"),
    [
        ("red and red", "red", "0"),
        ("red and blue", "red", "0"),
        ("Red boats", "red", "0"),
        ("Red boats, red boats", "RED", "0"),
        ("reddish, a red, red", "red", "11"),
        ("reddish, a Red", "RED", "11"),
        ("reddish, scarred", "red", "0"),
        ("red2, x\u0301red, \N{HONEYBEE}red", "red", "14"),
        ("\u4ed6\u7ea2\u8272\u7ea2", "\u7ea2", "1"),
        ("zero\u200bwidth  and\r\nline", "zerowidth and line", "0"),
    ],
)
def test_without_a_start_the_first_whole_word_is_taken(context, text, found):
    assert str(first_whole(context, places(context, text))[0]) == found


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(TEXT, TEXT, TEXT)
def test_what_stands_there_is_found_at_its_place(before, text, after):
    assume(text.strip())
    assert place(before + text + after, text, len(before)) == (len(before), len(before) + len(text))


@given(TEXT, TEXT, TEXT, st.none() | st.integers(0, 40))
def test_a_place_is_a_piece_of_the_context_that_reads_as_the_answer(before, text, after, start):
    context = before + unicodedata.normalize("NFC", text).upper() + after
    at = first_whole(context, places(context, text)) if start is None else place(context, text, start)
    if at is not None:
        assert 0 <= at[0] < at[1] <= len(context)

        def plain(s):
            folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", s).casefold())
            return "".join(
                c for c in folded if unicodedata.category(c) not in ("Cf", "Mn") and not c.isspace()
            )

        assert plain(context[at[0] : at[1]]) == plain(text)


@given(st.text("ab ", min_size=1, max_size=30), st.data())
def test_of_several_places_spelled_alike_the_nearest_is_taken(context, drawn):
    begin = drawn.draw(st.integers(0, len(context) - 1))
    text = context[begin : drawn.draw(st.integers(begin + 1, min(len(context), begin + 3)))]
    assume(text.strip() and text == text.strip() and "  " not in text)
    start = drawn.draw(st.integers(0, len(context) + 2))
    everywhere = [at for at in range(len(context)) if context.startswith(text, at)]
    at, end = place(context, text, start)
    assert context[at:end] == text and abs(at - start) == min(abs(each - start) for each in everywhere)


@given(TEXT, TEXT)
def test_utf_16_offsets_are_understood(before, text):
    assume(text.strip() and text not in before)
    context = "\N{HONEYBEE}" + before + " " + text
    assume(context.count(text) == 1)
    start = len(context[: context.index(text)].encode("utf-16-le")) // 2
    assert place(context, text, start)[0] == context.index(text)
