"""What says in which language questions are, and what becomes of it in prepared data."""

import json

import pytest

from common.data import questions
from common.data.language import checked, named
from common.data.prepared import load
from common.data.summary import summary
from common.errors import UserError


def test_the_innermost_record_that_names_a_language_counts():
    assert named({"language": "de"}, {"title": "x"}, {"lang": "zh-Hans"}) == "zh-Hans"
    assert named({"language": "DE"}, {"title": "x"}, []) == "de"
    assert named({"language": "German"}, {"lang": 3}) is None


@pytest.mark.parametrize("language", ["german", "", "de_DE", "x" * 50])
def test_what_is_no_code_is_refused(language):
    with pytest.raises(UserError, match="--language is .*: give a code such as de"):
        checked(language)


def questions_of(*rows):
    """A SQuAD file's content of (title, question, further keys)."""
    return [
        {
            "title": title,
            "paragraphs": [
                {
                    "context": f"Die Donau fließt durch Wien und {title}.",
                    "qas": [
                        {
                            "id": f"{title}-{question}",
                            "question": question,
                            "answers": [{"text": "Wien", "answer_start": 23}],
                            **more,
                        }
                    ],
                }
            ],
        }
        for title, question, more in rows
    ]


ROWS = [(f"Ort {n}", "Wodurch?", {}) for n in range(6)]


@pytest.fixture
def prepare(tmp_path):
    def run(content, name="train.json", **settings):
        file = tmp_path / name
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        record = questions.prepare_files(file, None, tmp_path / "data", **settings)
        splits, loaded = load(tmp_path / "data")
        assert loaded == record
        return record, {row["id"]: row.get("language") for part in splits.values() for row in part}

    return run


def test_a_file_says_what_language_it_is_in(prepare):
    plain, languages = prepare({"version": "1.1", "data": questions_of(*ROWS)})
    assert plain.language is None and set(languages.values()) == {None}
    named, languages = prepare({"version": "1.1", "language": "de", "data": questions_of(*ROWS)})
    assert named.language == "de" and set(languages.values()) == {"de"}
    # Scores differ, so results are not mixed up.
    assert named.fingerprint != plain.fingerprint
    korean, _ = prepare({"version": "KorQuAD_v1.0_train", "data": questions_of(*ROWS)})
    assert korean.language == "korquad"
    cmrc, _ = prepare({"version": "v1.0", "data": questions_of(*ROWS)}, form="cmrc")
    assert cmrc.language == "cmrc"


def test_each_question_may_have_its_own(prepare):
    mixed = [*ROWS[:-1], ("Ort 9", "怎么?", {"language": "zh"})]
    record, languages = prepare({"version": "1.1", "data": questions_of(*mixed)})
    assert record.language is None
    assert languages["Ort 9-怎么?"] == "zh" and list(languages.values()).count(None) == 5


def test_a_table_has_a_column_for_it(prepare):
    lines = ["question,context,answer,title,language"]
    lines += [f"Wodurch?,Die Donau fließt durch Wien und Ort {n}.,Wien,Ort {n},de-AT" for n in range(6)]
    record, _ = prepare("\n".join(lines), "train.csv")
    assert record.language == "de-AT"


def test_the_user_has_the_last_word(prepare):
    record, languages = prepare(
        {"version": "1.1", "language": "en", "data": questions_of(*ROWS)}, language="de"
    )
    assert record.language == "de" and set(languages.values()) == {"de"}
    assert any("answers are scored by the rules for de" in line for line in summary(record, "data").lines)
