"""Prepared data in a few lines, made of records."""

from dataclasses import replace
from pathlib import Path

from common.data.record import DataRecord
from common.data.summary import summary

COUNTS = {"questions": 40, "answerable": 30, "paragraphs": 20, "titles": 4}
QUESTIONS = DataRecord(
    source="files",
    name="quiz",
    version="v2.0",
    files=[],
    seed=42,
    validation_share=0.1,
    validation_by="article",
    counts={"train": COUNTS, "test": COUNTS | {"questions": 10}},
    fingerprint="ab" * 32,
)
TEXTS = DataRecord(
    kind="text",
    labels=("neg", "pos"),
    source="text",
    name="reviews",
    version="binary",
    files=[],
    seed=42,
    validation_share=0.1,
    counts={
        split: {"texts": 9, "different": 8, "neg": 4, "pos": 5} for split in ("train", "validation", "test")
    },
    fingerprint="cd" * 32,
)


def test_questions_have_a_line_for_each_split():
    found = summary(QUESTIONS, Path("folder"))
    assert found.lines == [
        "folder: quiz, SQuAD v2.0, fingerprint abababababab",
        "  train          40 questions (30 answerable) on 20 paragraphs of 4 articles",
        "  test           10 questions (30 answerable) on 20 paragraphs of 4 articles",
    ]
    assert found.warnings == []


def test_each_correction_that_was_made_has_its_line():
    found = summary(replace(QUESTIONS, repaired=3, made_ids=2, skipped=1), Path("folder"))
    assert [line.split()[0] for line in found.lines[3:]] == ["3", "2", "1"]
    assert "wrong answer_start" in found.lines[3] and "skipped.json" in found.lines[5]


def test_a_reader_is_warned_of_questions_that_splits_share_and_of_dropped_answers():
    notes = [f"answer {i} is nowhere" for i in range(12)]
    record = replace(
        QUESTIONS, notes=notes, dropped=12, validation_by="paragraph", test_paragraphs_also_in_train=5
    )
    warnings = summary(record, Path("folder")).warnings
    assert [line.strip() for line in warnings[:10]] == [f"not trained on: {note}" for note in notes[:10]]
    assert "12 answers are not trained on" in warnings[10] and "by paragraph" in warnings[11]
    assert warnings[12:] == ["  warning: paragraphs of test that are in train too: 5"]


def test_a_test_set_that_was_carved_is_no_published_one():
    (warning,) = summary(replace(QUESTIONS, test_by="article"), Path("folder")).warnings
    assert "they cannot be compared with scores on the authors' test set" in warning


def test_texts_are_counted_by_label():
    lines, warnings = summary(replace(TEXTS, skipped=2, test_texts_also_in_train=1), Path("folder"))
    assert lines[0] == "folder: reviews, fingerprint cdcdcdcdcdcd"
    assert lines[1].split(maxsplit=2)[2] == "texts (4 neg, 5 pos), 8 of them different"
    assert len(lines) == 5 and lines[4].startswith("  2 texts were left out")
    assert warnings == ["  warning: texts of test that are in train or validation too: 1"]
