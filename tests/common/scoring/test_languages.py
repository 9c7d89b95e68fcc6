"""Answers in other languages, against figures that the published scripts compute."""

import pytest

from common.scoring import squad
from common.scoring.languages import CODE, RULES, rules_of, words

# What https://github.com/facebookresearch/MLQA's mlqa_evaluation_v1.py gives: exact match and F1.
MLQA = [
    ("en", "The Eiffel Tower, in Paris", "eiffel tower", 0.0, 0.6666666666666666),
    ("es", "la Torre Eiffel de París", "Torre Eiffel", 0.0, 0.6666666666666666),
    ("es", "¿Los años 1990?", "años 1990", 1.0, 1.0),
    ("hi", "भारत की राजधानी नई दिल्ली।", "नई दिल्ली", 0.0, 0.5714285714285715),
    ("vi", "những con sông của Việt Nam", "sông Việt Nam", 0.0, 0.8571428571428571),
    ("de", "in der Schlacht bei den „Thermopylen“", "die Schlacht bei Thermopylen", 0.0, 0.8571428571428571),
    ("de", "Das Haus", "haus", 1.0, 1.0),
    ("ar", "الكتاب الكبير", "كتاب كبير", 1.0, 1.0),
    ("ar", "في مدينة القاهرة", "القاهرة", 0.0, 0.5),
    ("zh", "1949年10月1日，北京", "10月1日", 0.0, 0.6666666666666666),
    ("zh", "中华人民共和国", "中華人民共和國", 0.0, 0.7142857142857143),
    ("zh", "使用 Python 语言", "Python语言", 0.0, 0.7499999999999999),
]

# What https://github.com/ymcui/cmrc2018's cmrc2018_evaluate.py gives.
CMRC = [
    ("cmrc", "1949年10月1日，北京", "10月1日", 0.0, 0.6666666666666666),
    ("cmrc", "《红楼梦》", "红楼梦", 1.0, 1.0),
    ("cmrc", "作者Henry A. Walsh", "Henry A. Walsh", 0.0, 0.7499999999999999),
    # In common is a run, not a bag.
    ("cmrc", "北京和上海", "上海和北京", 0.0, 0.4000000000000001),
    ("cmrc", "8,000米", "8,000 米", 0.0, 1.0),
]

# KorQuAD's rules by hand: characters count, quotation marks and brackets separate, white space does not count.
KORQUAD = [
    ("korquad", "《대한민국》", "대한민국", 1.0, 1.0),
    ("korquad", "이순신은", "이순신", 0.0, 2 * (3 / 4) * 1 / (3 / 4 + 1)),
    ("korquad", "서울 특별시", "서울특별시", 0.0, 1.0),
    ("ko", "이순신은", "이순신", 0.0, 2 * (3 / 4) * 1 / (3 / 4 + 1)),
]


@pytest.mark.parametrize("language, prediction, gold, exact, f1", MLQA + CMRC + KORQUAD)
def test_published_figures_to_the_digit(language, prediction, gold, exact, f1):
    assert squad.exact_match(prediction, [gold], "v1.1", language) == exact
    assert squad.f1(prediction, [gold], "v1.1", language) == f1


def test_each_question_is_scored_by_its_own_language():
    references = [
        {"id": f"{language}-{i}", "language": language, "answers": {"text": [gold]}}
        for i, (language, _, gold, _, _) in enumerate(MLQA)
    ]
    predictions = {
        reference["id"]: prediction for reference, (_, prediction, *_) in zip(references, MLQA, strict=True)
    }
    for version in ("v1.1", "v2.0"):
        scored = squad.score_examples(predictions, references, version)
        assert scored["f1"].tolist() == [f1 for *_, f1 in MLQA]
        assert scored["exact_match"].tolist() == [exact for *_, exact, _ in MLQA]


@pytest.mark.parametrize("language", [None, "", "fr", "pt-BR"])
def test_where_nothing_is_published_squads_rules_hold(language):
    assert rules_of(language) is None
    assert squad.exact_match("L'été, the été", ["l'été été"], language=language) == 1.0


def test_a_region_or_script_does_not_change_the_language():
    assert rules_of("zh-Hans") is RULES["zh"] and rules_of("DE-at") is RULES["de"]
    assert all(CODE.fullmatch(code) for code in (*RULES, "pt-BR", "zh-Hans-CN"))
    assert not any(CODE.fullmatch(code) for code in ("", "german", "d", "de_DE", "zh-", "squad"))


def test_japanese_is_compared_by_character():
    assert squad.f1("東京タワー", ["東京の塔"], language="ja") == pytest.approx(
        2 * (2 / 5) * (2 / 4) / (2 / 5 + 2 / 4)
    )
    assert squad.exact_match("「東京」", ["東京"], language="ja") == 1.0


def test_no_answer_in_any_language():
    for language in RULES:
        assert squad.f1("", [], language=language) == 1.0
        assert squad.f1("1", [], language=language) == 0.0


def test_words_of_texts_without_spaces():
    assert words("The  heart beats.") == ["The", "heart", "beats."]
    assert len(words("北京是中国的首都")) == 8
