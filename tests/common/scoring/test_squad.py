"""Scores against the official evaluation scripts' rules, written out anew, and against figures worked out by hand."""

import re
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.scoring.squad import (
    exact_match,
    f1,
    normalize_answer,
    score_examples,
    squad_scores,
)


def reference(id_, *golds):
    return {"id": id_, "answers": {"text": list(golds), "answer_start": [0] * len(golds)}}


def official_normalize(text):
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def official_f1(prediction, gold, version):
    predicted, expected = official_normalize(prediction).split(), official_normalize(gold).split()
    if version == "v2.0" and (not predicted or not expected):
        return int(predicted == expected)
    same = sum((Counter(predicted) & Counter(expected)).values())
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(predicted), 1.0 * same / len(expected)
    return (2 * precision * recall) / (precision + recall)


def official_v1(references, predictions):
    exact = overlap = total = 0
    for question in references:
        total += 1
        if question["id"] not in predictions:
            continue
        prediction, golds = predictions[question["id"]], question["answers"]["text"]
        exact += max(official_normalize(prediction) == official_normalize(gold) for gold in golds)
        overlap += max(official_f1(prediction, gold, "v1.1") for gold in golds)
    return {"exact_match": 100.0 * exact / total, "f1": 100.0 * overlap / total}


def official_v2(references, predictions, odds=None, threshold=1.0):
    has_answer = {question["id"]: bool(question["answers"]["text"]) for question in references}
    exact, overlap = {}, {}
    for question in references:
        id_ = question["id"]
        golds = [gold for gold in question["answers"]["text"] if official_normalize(gold)] or [""]
        exact[id_] = max(
            int(official_normalize(predictions[id_]) == official_normalize(gold)) for gold in golds
        )
        overlap[id_] = max(official_f1(predictions[id_], gold, "v2.0") for gold in golds)
    given_odds = odds or dict.fromkeys(predictions, 0.0)

    def cut(scores):
        return {
            id_: float(not has_answer[id_]) if given_odds[id_] > threshold else score
            for id_, score in scores.items()
        }

    def best(scores):
        current = highest = sum(not known for known in has_answer.values())
        at = 0.0
        for id_ in sorted(given_odds, key=lambda id_: given_odds[id_]):
            if id_ in scores:
                current += scores[id_] if has_answer[id_] else (-1 if predictions[id_] else 0)
                if current > highest:
                    highest, at = current, given_odds[id_]
        return 100.0 * highest / len(scores), at

    cut_exact, cut_overlap = cut(exact), cut(overlap)
    result = {}
    for prefix, ids in (
        ("", list(exact)),
        ("HasAns_", [id_ for id_ in exact if has_answer[id_]]),
        ("NoAns_", [id_ for id_ in exact if not has_answer[id_]]),
    ):
        if ids:
            result[f"{prefix}exact"] = 100.0 * sum(cut_exact[id_] for id_ in ids) / len(ids)
            result[f"{prefix}f1"] = 100.0 * sum(cut_overlap[id_] for id_ in ids) / len(ids)
            result[f"{prefix}total"] = len(ids)
    if odds:
        result["best_exact"], result["best_exact_thresh"] = best(exact)
        result["best_f1"], result["best_f1_thresh"] = best(overlap)
    return result | {"exact_match": result["exact"]}


words = st.sampled_from(
    [
        "the",
        "a",
        "an",
        "The",
        "A.",
        "cat",
        "Cat",
        "dog,",
        "U.S.",
        "naïve",
        "Ünïcode",
        "–",
        "“quoted”",
        "ﬁn",
        "3.5",
        "...",
    ]
    + ["İstanbul", "ß", "中文", "i̇", "\u00a0", "\u2003", "the-cat", "cat's", "anthem", "a\tb", "𝒜", "e\u0301"]
)
phrases = st.lists(words, max_size=6).map(" ".join) | st.text(max_size=20)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel  Tower!", "eiffel tower"),
        ("an apple a day", "apple day"),
        ("a", ""),
        ("U.S.", "us"),
        ("cat's", "cats"),
        ("the-cat", "thecat"),
        ("A.B.", "ab"),
        ("theatre, Anthem", "theatre anthem"),
        ("“the” cat", "“ ” cat"),
        ("$1,000", "1000"),
        ("ÜBER die Brücke", "über die brücke"),
        ("5–6", "5–6"),
        ("x\u00a0\ty\n", "x y"),
        ("", ""),
    ],
)
def test_normalization_by_hand(text, normal):
    assert normalize_answer(text) == normal


@settings(max_examples=500, deadline=None)
@given(phrases)
def test_normalization_is_the_official_one(text):
    assert normalize_answer(text) == official_normalize(text)


@settings(deadline=None)
@given(phrases, st.sampled_from(["the", "a", "an", "The", "AN"]), st.sampled_from(string.punctuation))
def test_articles_and_punctuation_do_not_count(text, article, mark):
    for other in (f"{article} {text}", f"{text} {article}", f"{text}{mark}", f"{mark}{text}", f"  {text}\n"):
        assert exact_match(other, [text]) == f1(other, [text]) == 1.0


@settings(deadline=None)
@given(phrases, st.lists(phrases, min_size=1, max_size=4), st.sampled_from(["v1.1", "v2.0"]))
def test_scores_lie_between_0_and_1_and_more_references_never_hurt(prediction, golds, version):
    exact, overlap = exact_match(prediction, golds, version), f1(prediction, golds, version)
    assert exact in (0.0, 1.0)
    assert 0.0 <= overlap <= 1.0
    if version == "v1.1" or all(map(official_normalize, golds)):
        assert exact == max(exact_match(prediction, [gold], version) for gold in golds)
        assert overlap == max(f1(prediction, [gold], version) for gold in golds)
    if exact and (version == "v2.0" or official_normalize(prediction)):
        assert overlap == 1.0
    assert f1(prediction, golds[::-1], version) == overlap


@settings(deadline=None)
@given(phrases, phrases, st.sampled_from(["v1.1", "v2.0"]))
def test_scores_are_symmetric_and_blind_to_word_order(one, other, version):
    assert exact_match(one, [other], version) == exact_match(other, [one], version)
    assert f1(one, [other], version) == pytest.approx(f1(other, [one], version))
    shuffled = " ".join(reversed(normalize_answer(one).split()))
    assert f1(one, [shuffled], version) == (1.0 if version == "v2.0" or shuffled else 0.0)


@pytest.mark.parametrize(
    ("prediction", "golds", "exact", "overlap"),
    [
        ("Denver Broncos", ["Denver Broncos", "The Denver Broncos"], 1, 1),
        ("the Denver Broncos team", ["Denver Broncos"], 0, 0.8),
        ("Broncos", ["Carolina Panthers", "Denver Broncos"], 0, 2 / 3),
        ("dog dog cat", ["dog cat cat"], 0, 2 / 3),
        ("1920s", ["1920"], 0, 0),
        ("", ["x"], 0, 0),
        ("x", ["the"], 0, 0),
    ],
)
def test_scores_by_hand(prediction, golds, exact, overlap):
    for version in ("v1.1", "v2.0"):
        assert exact_match(prediction, golds, version) == exact
        assert f1(prediction, golds, version) == pytest.approx(overlap)


def test_where_the_versions_differ():
    """v1.1 gives words that all vanish an exact match without F1; v2.0 compares emptiness itself."""
    assert (exact_match("an", ["the"], "v1.1"), f1("an", ["the"], "v1.1")) == (1.0, 0.0)
    assert (exact_match("an", ["the"], "v2.0"), f1("an", ["the"], "v2.0")) == (1.0, 1.0)
    assert (exact_match("", ["The", "x"], "v2.0"), f1("", ["The", "x"], "v2.0")) == (0.0, 0.0)
    assert (exact_match("", ["The", "x"], "v1.1"), f1("", ["The", "x"], "v1.1")) == (1.0, 0.0)
    assert (exact_match("", []), f1("", []), exact_match("x", []), f1("x", [])) == (1.0, 1.0, 0.0, 0.0)
    for score in (exact_match, f1):
        with pytest.raises(ValueError, match="v1.1"):
            score("", [], "v1.1")


@st.composite
def evaluations(draw, smallest):
    golds = draw(st.lists(st.lists(phrases, min_size=smallest, max_size=3), min_size=1, max_size=8))
    references = [reference(f"q{i}", *texts) for i, texts in enumerate(golds)]
    predictions = {f"q{i}": draw(phrases | st.sampled_from([*texts, ""])) for i, texts in enumerate(golds)}
    odds = {id_: draw(st.sampled_from([0.0, 0.1, 0.5, 0.9]) | st.floats(0, 1)) for id_ in predictions}
    return references, predictions, odds


@settings(max_examples=300, deadline=None)
@given(evaluations(smallest=1), st.sets(st.integers(0, 7)))
def test_v1_scores_equal_the_official_script(evaluation, left_out):
    references, predictions, _ = evaluation
    assert squad_scores(predictions, references, "v1.1") == official_v1(references, predictions)
    some = {id_: text for id_, text in predictions.items() if int(id_[1:]) not in left_out}
    assert squad_scores(some | {"unknown": "x"}, references, "v1.1") == official_v1(references, some)


@settings(max_examples=300, deadline=None)
@given(evaluations(smallest=0), st.sampled_from([1.0, 0.5, 0.0]))
def test_v2_scores_equal_the_official_script(evaluation, threshold):
    references, predictions, odds = evaluation
    assert squad_scores(predictions, references, "v2.0") == official_v2(references, predictions)
    found = squad_scores(predictions | {"unknown": "x"}, references, "v2.0", odds, threshold)
    assert found == official_v2(references, predictions, odds, threshold)


def test_v2_by_hand():
    references = [reference("1", "Normandy"), reference("2"), reference("3", "10th century"), reference("4")]
    predictions = {"1": "in Normandy", "2": "", "3": "the 10th Century", "4": "Rollo"}
    odds = {"1": 0.1, "2": 0.9, "3": 0.2, "4": 0.6}
    expected = {"exact": 50.0, "exact_match": 50.0, "f1": 100 * (2 / 3 + 1 + 1) / 4, "total": 4}
    expected |= {"HasAns_exact": 50.0, "HasAns_f1": 100 * (2 / 3 + 1) / 2, "HasAns_total": 2}
    expected |= {"NoAns_exact": 50.0, "NoAns_f1": 50.0, "NoAns_total": 2}
    assert squad_scores(predictions, references, "v2.0") == pytest.approx(expected)
    with_odds = squad_scores(predictions, references, "v2.0", odds, 0.5)
    # Above 0.5 lie questions 2 and 4, both rightly taken for unanswerable; best is to answer 1 and 3 only.
    assert with_odds["exact"] == 75.0 and with_odds["NoAns_exact"] == 100.0
    assert (with_odds["best_exact"], with_odds["best_exact_thresh"]) == (75.0, 0.2)
    assert (with_odds["best_f1"], with_odds["best_f1_thresh"]) == (pytest.approx(100 * (2 / 3 + 3) / 4), 0.2)


def test_missing_predictions_score_0_in_v1_and_are_left_out_in_v2():
    references = [reference("1", "x"), reference("2", "y")]
    assert squad_scores({"1": "x"}, references, "v1.1") == {"exact_match": 50.0, "f1": 50.0}
    v2 = squad_scores({"1": "x"}, references, "v2.0")
    assert (v2["exact"], v2["total"], v2["HasAns_total"]) == (100.0, 1, 1)


def test_what_cannot_be_scored_is_refused():
    references = [reference("1", "x")]
    with pytest.raises(ValueError, match="other data"):
        squad_scores({"2": "x"}, references, "v2.0")
    with pytest.raises(ValueError, match="other data"):
        squad_scores({}, [], "v1.1")
    with pytest.raises(ValueError, match="odds: 1"):
        squad_scores({"1": "x"}, references, "v2.0", null_odds={})
    with pytest.raises(ValueError, match="v1.1"):
        squad_scores({"1": "x"}, references, "v1.1", null_odds={"1": 0.0})
    with pytest.raises(ValueError, match="'1.1'"):
        squad_scores({"1": "x"}, references, "1.1")


def test_scores_of_examples_follow_the_references():
    references = [reference("b", "x y"), reference("a"), reference("c", "z")]
    scores = score_examples({"a": "", "b": "x"}, references)
    assert scores["id"].tolist() == ["b", "a"]
    assert scores["exact_match"].tolist() == [0.0, 1.0]
    assert scores["f1"].tolist() == [pytest.approx(2 / 3), 1.0]
    assert scores["answerable"].tolist() == [True, False]
    answerable = [references[0], references[2]]
    scores = score_examples({"b": "x"}, answerable, "v1.1")
    assert scores["id"].tolist() == ["b", "c"] and scores["f1"].tolist() == [pytest.approx(2 / 3), 0.0]
    assert 100 * scores["f1"].mean() == pytest.approx(squad_scores({"b": "x"}, answerable, "v1.1")["f1"])
    assert [len(column) for column in score_examples({}, references).values()] == [0, 0, 0, 0]
