"""Variants of examples: seeded, with answers in their places, and different where they can be."""

import random
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from common.data import perturb
from common.errors import UserError
from tests.support.odd import texts
from tests.support.questions import EXAMPLES

SEEDS = st.integers(0, 5)
ANY = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80)


def clusters(text):
    return regex.findall(r"\X", text)


@given(ANY, SEEDS)
def test_typos_change_what_has_long_words(text, seed):
    made = perturb.typos(text, random.Random(seed))
    long = [word for word in regex.findall(r"\w+", text) if len(clusters(word)) >= perturb.SHORTEST]
    assert (made != text) == bool(long) and set(made) <= set(text)


def test_typos_look_like_those_of_people():
    text = "Which sentence describes the hexagonal structure of honeycombs exactly?"
    made = {perturb.typos(text, random.Random(seed)) for seed in range(30)}
    assert text not in made and len(made) > 15
    for each in made:
        changed = [(a, b) for a, b in zip(text.split(), each.split(), strict=True) if a != b]
        assert len(changed) == 1 and changed[0][0][0] == changed[0][1][0]


def test_typos_keep_characters_whole():
    """An accent stays on its letter, an emoji's parts stay together."""
    text = "re\u0301sume\u0301s \u0926\u0947\u0935\u0928\u093e\u0917\u0930\u0940"
    known = set(clusters(text))
    for seed in range(40):
        assert set(clusters(perturb.typos(text, random.Random(seed)))) <= known


@given(ANY, SEEDS)
def test_case_gives_another_case_where_there_is_one(text, seed):
    made = perturb.case(text, random.Random(seed))
    assert (made == text) == (text == text.lower() == text.upper() == perturb.capitals(text))
    assert made in {text, text.lower(), text.upper(), perturb.capitals(text)}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Who is it?", {"who is it?", "WHO IS IT?", "Who Is It?"}),
        ("who is it?", {"WHO IS IT?", "Who Is It?"}),
        ("誰ですか", {"誰ですか"}),
    ],
)
def test_case_changes_what_has_one(text, made):
    assert {perturb.case(text, random.Random(seed)) for seed in range(20)} == made


@given(ANY, SEEDS)
def test_punctuation_changes_marks_and_spaces_alone(text, seed):
    made = perturb.punctuation(text, random.Random(seed))

    def rest(each):
        return [c for c in each if not unicodedata.category(c).startswith("P") and c != " "]

    assert made != text and made.strip()
    assert rest(made) in (rest(text), rest(text * 2))


def test_punctuation_inside_words_stays():
    found = {perturb.punctuation("Didn't it cost $1.5, really?", random.Random(seed)) for seed in range(20)}
    assert found == {
        "Didn't it cost $1.5 really",
        "Didn't it cost $1.5,, really??",
        "Didn't it cost $1.5 , really ?",
    }


@given(st.data(), SEEDS, st.booleans())
def test_answers_stay_where_they_are_said_to_be(data, seed, before):
    context = "".join(data.draw(texts()))
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    gold = context[start:end]
    example = {"id": "a", "question": "?", "context": context}
    example["answers"] = {"text": [gold, "elsewhere"], "answer_start": [start, -1]}
    made = perturb.with_sentence(example, data.draw(ANY), before)
    (found, missing) = made["answers"]["answer_start"]
    assert made["context"][found : found + len(gold)] == gold and missing == -1
    assert context in made["context"] and made["answers"]["text"] == example["answers"]["text"]
    assert example["answers"]["answer_start"] == [start, -1] and example["context"] == context


@pytest.mark.parametrize("kind", perturb.KINDS)
def test_variants_follow_from_seed_kind_and_id_alone(kind):
    whole = perturb.perturbed(EXAMPLES, kind, 3)
    assert whole == perturb.perturbed(EXAMPLES, kind, 3) != perturb.perturbed(EXAMPLES, kind, 4)
    assert [e["id"] for e in whole] == [e["id"] for e in EXAMPLES] and whole != EXAMPLES
    if kind != "distractor":
        assert perturb.perturbed(EXAMPLES[2:4], kind, 3) == whole[2:4]
    for made, example in zip(whole, EXAMPLES, strict=True):
        assert made["answers"]["text"] == example["answers"]["text"]
        for text, start in zip(*made["answers"].values(), strict=True):
            assert made["context"].startswith(text, start)


def test_a_distractor_is_of_another_document_and_holds_no_answer():
    places = set()
    for seed in range(20):
        for made, example in zip(perturb.perturbed(EXAMPLES, "distractor", seed), EXAMPLES, strict=True):
            head, middle, tail = made["context"].partition(example["context"])
            places.add(bool(head))
            sentence = (head or tail).strip()
            assert middle and bool(head) != bool(tail)
            assert sentence in {e["context"] for e in EXAMPLES} - {example["context"]}
            assert not any(gold in sentence for gold in example["answers"]["text"])
    assert places == {True, False}


def test_texts_are_changed_and_have_no_distractor():
    rows = [{"id": "a", "text": "It was wonderful, really.", "label": 1}]
    for kind in ("typos", "case", "punctuation"):
        (made,) = perturb.perturbed(rows, kind)
        assert made["text"] != rows[0]["text"] and made["label"] == 1
    with pytest.raises(UserError, match="for questions on contexts"):
        perturb.perturbed(rows, "distractor")
    with pytest.raises(UserError, match="at least two documents"):
        perturb.perturbed(EXAMPLES[:1], "distractor")
    with pytest.raises(UserError, match="'noise': choose among typos, case"):
        perturb.check(["noise"])
