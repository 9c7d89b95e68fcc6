"""Labels as people write them."""

import pytest

from common.data import label_values


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (" Sci/Tech ", "Sci/Tech"),
        (3, "3"),
        (3.0, "3"),
        ("3.00", "3"),
        (-1, "-1"),
        ("1.5", "1.5"),
        (True, "True"),
        ("世界", "世界"),
        (1.5, ""),
        (float("nan"), ""),
        (None, ""),
        ("", ""),
        (b"x", ""),
        ("a\ud800", ""),
    ],
)
def test_a_label_is_a_string_or_an_integer(value, name):
    assert label_values.spelled(value) == name


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (["a", 2, "a"], ["a", "2"]),
        ("a|b; c| d ", ["a", "b; c", "d"]),
        ("a; b", ["a", "b"]),
        ("a, b", ["a, b"]),
        ('["a", "b"]', ["a", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ("[a]", ["[a]"]),
        ("", []),
        ("[]", []),
        ([], []),
        (None, []),
        (7, ["7"]),
        ("a|", ["a"]),
    ],
)
def test_several_labels_are_a_list_or_a_text_with_separators(value, labels):
    assert label_values.several(value) == labels


def test_what_is_no_label_in_a_list_is_named():
    assert (
        label_values.several(["a", None])
        == ": the labels are ['a', None]; each must be a string or an integer."
    )


def test_labels_are_sorted_by_number_or_by_code_point():
    assert label_values.ordered(["10", "9", "-2"]) == ("-2", "9", "10")
    assert label_values.ordered(["10", "9", "a", "B"]) == ("10", "9", "B", "a")


def test_two_sentiments_are_known_in_all_spellings_and_nothing_else_is():
    for spellings in (("0", "1"), ("NEG", "pos"), ("negative", "Positive"), ("LABEL_0", "LABEL_1"), ("1",)):
        assert label_values.is_sentiment(spellings)
        assert {label_values.sentiment(each) for each in spellings} <= {"negative", "positive"}
    assert not label_values.is_sentiment(("0", "1", "2"))
    assert not label_values.is_sentiment(("negative", "neutral", "positive"))


def test_labels_that_differ_in_case_alone_are_found():
    assert label_values.alike(["Sport", "sport ", "News"]) == [("Sport", "sport ")]


def test_marks_are_zero_or_one():
    assert label_values.marked({"a": 1, "b": "0", "c": True, "d": "1.0"}, "abcd") == ["a", "c", "d"]
    assert "'e' is None" in label_values.marked({"a": 1}, ["a", "e"])
