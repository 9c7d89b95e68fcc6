"""What is carved out of train: whole articles of questions, and a share of each label of texts."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.validation_split import carve, carve_by_label, carve_by_label_sets
from common.errors import UserError
from tests.support.texts import make_texts


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), min_size=2, max_size=40), st.integers(0, 3))
def test_carving_never_puts_a_paragraph_on_both_sides(pairs, seed):
    examples = [{"id": str(i), "title": f"t{t}", "context": f"c{c}"} for i, (t, c) in enumerate(pairs)]
    if len({e["context"] for e in examples}) < 2:
        return
    train, validation, unit = carve(examples, 0.2, seed)
    assert (
        train
        and validation
        and sorted(e["id"] for e in train + validation) == sorted(e["id"] for e in examples)
    )
    assert not {e["context"] for e in train} & {e["context"] for e in validation}
    if unit == "article":
        assert not {e["title"] for e in train} & {e["title"] for e in validation}


@pytest.mark.parametrize("seed", range(8))
def test_a_big_article_never_becomes_validation_where_a_small_one_can(seed):
    sizes = {"big": 95, "small": 5}
    examples = [
        {"id": f"{t}{i}", "title": t, "context": f"{t}{i}"} for t, n in sizes.items() for i in range(n)
    ]
    train, validation, _ = carve(examples, 0.1, seed)
    assert {e["title"] for e in validation} == {"small"} and len(train) == 95


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match="--validation_share"):
        carve([{"id": "1", "title": "t", "context": "c"}], share, 0)


@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 1)), min_size=1, max_size=60),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_carving_keeps_duplicates_together_and_labels_in_proportion(pairs, share, seed):
    examples = [{"id": str(i), "text": f"t{t}", "label": label} for i, (t, label) in enumerate(pairs)]
    train, validation = carve_by_label(examples, share, seed)
    assert sorted(e["id"] for e in train + validation) == sorted(e["id"] for e in examples)
    assert not {e["text"] for e in train} & {e["text"] for e in validation}
    rows = Counter(e["text"] for e in examples)
    first = {}
    for e in examples:
        first.setdefault(e["text"], e["label"])
    for label in (0, 1):
        of_label = [text for text in first if first[text] == label]
        if len(of_label) > 1:
            chosen = [text for text in of_label if text in {e["text"] for e in validation}]
            assert 0 < len(chosen) < len(of_label)
            size, goal = sum(rows[t] for t in chosen), share * sum(rows[t] for t in of_label)
            assert size <= goal or len(chosen) == 1
    assert carve_by_label(examples, share, seed) == (train, validation)


def test_different_texts_are_carved_to_the_share_exactly():
    examples = [{"text": e["text"], "label": e["label"]} for e in make_texts(200)]
    assert Counter(e["label"] for e in carve_by_label(examples, 0.1, 0)[1]) == {0: 10, 1: 10}
    with pytest.raises(UserError, match="--validation_share"):
        carve_by_label(examples, 1.0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 25), st.sets(st.integers(0, 4))), min_size=1, max_size=80),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_carving_label_sets_keeps_texts_together_and_every_label_in_train(pairs, share, seed):
    examples = [{"id": str(i), "text": f"t{t}", "label": sorted(s)} for i, (t, s) in enumerate(pairs)]
    train, validation = carve_by_label_sets(examples, share, seed)
    assert sorted(e["id"] for e in train + validation) == sorted(e["id"] for e in examples)
    if len({e["text"] for e in examples}) > 1:
        assert not {e["text"] for e in train} & {e["text"] for e in validation}
    assert carve_by_label_sets(examples, share, seed) == (train, validation)


def test_carving_label_sets_gives_each_label_its_share():
    rng = random.Random(0)
    rarity = (0.5, 0.2, 0.05, 0.01)
    examples = [
        {"text": f"t{i}", "label": [n for n, p in enumerate(rarity) if rng.random() < p]} for i in range(3000)
    ]
    _, validation = carve_by_label_sets(examples, 0.1, 1)
    assert abs(len(validation) - 300) <= 15
    for n in range(4):
        whole = sum(n in e["label"] for e in examples)
        assert sum(n in e["label"] for e in validation) == pytest.approx(whole / 10, abs=2)


def test_where_no_group_is_wanted_the_smallest_is_taken_that_leaves_each_label_to_train():
    rows = [(0, "a"), (0, "a"), (1, "a"), (2, "b"), (3, "a"), (3, "b"), (3, "b")]
    examples = [{"id": i, "text": f"t{t}", "label": "ab".index(label)} for i, (t, label) in enumerate(rows)]
    train, validation = carve_by_label_sets(examples, 0.01, 0)
    assert len({e["text"] for e in validation}) == 1 and len(validation) == 1
    assert {e["label"] for e in train} == {0, 1}
    # A label's only text stays.
    alone = [{"id": 0, "text": "a", "label": [0]}, {"id": 1, "text": "b", "label": [1]}]
    assert carve_by_label_sets(alone, 0.1, 0) == (alone, [])
