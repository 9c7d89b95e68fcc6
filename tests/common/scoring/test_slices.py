import numpy as np
import pytest

from common.scoring import slices


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Who shared the prize?", "who"),
        ("In what year did it open?", "when"),
        ("How many people live there?", "how many"),
        ("How does it fly?", "how"),
        ("Which city hosts it, and why?", "where"),
        ("Name the river.", "other"),
        ("What did the whole crew eat?", "what"),
    ],
)
def test_question_types(question, kind):
    assert slices.question_type(question) == kind


def example(question="Who?", context="Marie Curie won.", answers=("Marie Curie",)):
    return {
        "id": question,
        "question": question,
        "context": context,
        "answers": {"text": list(answers), "answer_start": [0] * len(answers)},
    }


def test_an_unanswerable_question_has_no_answer_length():
    assert slices.question_slices(example(answers=())) == {
        "question type": "who",
        "context length": "up to 100 words",
        "answerable": "unanswerable",
    }
    assert slices.question_slices(example())["answer length"] == "2-3 words"
    assert slices.question_slices(example(context="word " * 201))["context length"] == "201-400 words"


def test_questions_in_other_languages_have_no_english_question_word():
    found = slices.question_slices(example(context="北京是中国的首都" * 20) | {"language": "zh"})
    assert found["language"] == "zh" and "question type" not in found
    assert found["context length"] == "101-200 words"


@pytest.mark.parametrize("language", ["en", "EN-us"])
def test_english_has_its_slice_among_languages_and_its_question_words(language):
    found = slices.question_slices(example() | {"language": language})
    assert found["language"] == language and found["question type"] == "who"


@pytest.mark.parametrize("language", ["enm", "de"])
def test_a_code_that_begins_alike_is_another_language(language):
    assert "question type" not in slices.question_slices(example() | {"language": language})


def test_texts_are_sliced_by_length_and_label():
    assert slices.text_slices({"id": "1", "text": "good " * 150, "label": 1, "label_name": "positive"}) == {
        "text length": "101-200 words",
        "label": "positive",
    }


def test_scores_by_slice_are_means_over_its_examples():
    examples = [example("Who?"), example("Who else?"), example("When?", answers=())]
    table = slices.scores_by_slice(examples, [1.0, 0.5, 0.0], slices.question_slices).set_index(
        ["dimension", "slice"]
    )
    assert (
        table.loc[("question type", "who"), "score"] == 75
        and table.loc[("answerable", "unanswerable"), "score"] == 0
    )
    assert table.loc[("question type", "who"), "examples"] == 2
    assert table.loc[("question type", "who"), "low"] <= 75 <= table.loc[("question type", "who"), "high"]
    # Each dimension covers its examples once.
    sizes = table.groupby("dimension")["examples"].sum()
    assert sizes["question type"] == sizes["answerable"] == 3 and sizes["answer length"] == 2
    assert slices.scores_by_slice([], [], slices.question_slices).empty


def test_the_worst_are_the_surest_of_the_wrong():
    examples = [example(f"Who {i}?") for i in range(4)]
    rows = [
        {"id": str(i), "f1": f1, "probability": p}
        for i, (f1, p) in enumerate([(0.0, 0.2), (1.0, 0.9), (0.0, 0.8), (0.5, 0.9)])
    ]
    found = slices.worst(examples, rows, "f1", "probability")
    assert [row["id"] for row in found] == ["2", "0", "3"] and found[0]["references"] == ["Marie Curie"]


def test_agreement_counts_every_example_once():
    found = slices.agreement(np.array([1, 1, 0, 0.5]), np.array([1, 0, 1, 0]))
    assert found == {"both": 1, "only_first": 1, "only_second": 1, "neither": 1}


def test_the_set_of_mixed_data_is_a_dimension():
    for found in (
        slices.question_slices(example() | {"origin": "mine"}),
        slices.text_slices({"text": "good", "label": 1, "origin": "mine"}),
        slices.label_set_slices({"text": "good", "label": [], "origin": "mine"}),
    ):
        assert found["origin"] == "mine"
    assert "origin" not in slices.question_slices(example())
