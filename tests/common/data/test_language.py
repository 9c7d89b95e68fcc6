"""What says in which language questions are, and what becomes of it in prepared data."""

import json
from dataclasses import replace

import pytest

from common.data import questions
from common.data.examples import read_examples
from common.data.language import checked, named
from common.data.prepared import load
from common.data.question_fields import QuestionFault
from common.data.question_files import read_questions
from common.data.summary import summary
from common.errors import UserError
from tests.support.question_rows import save


def test_the_innermost_record_that_names_a_language_counts():
    assert named({"language": "de"}, {"title": "x"}, {"lang": "zh-Hans"}) == "zh-Hans"
    assert named({"language": "DE"}, {"title": "x"}, []) == "de"
    assert named({"language": "German"}, {"lang": "de"}) == "de"
    assert named({"language": "de"}, {"language": None, "lang": " "}, {"lang": float("nan")}) == "de"


@pytest.mark.parametrize("value", ["German", 3, ["de"], True])
def test_a_record_that_names_something_else_has_a_fault(value):
    with pytest.raises(QuestionFault, match="the language is .*; correct it to a code such as de"):
        named({"language": "de"}, {"lang": value})


@pytest.mark.parametrize(
    ("given", "code"), [("zh_CN", "zh-CN"), ("zh-CN", "zh-CN"), (" DE ", "de"), ("pt_br", "pt-br")]
)
def test_codes_may_be_written_with_either_mark(given, code):
    assert checked(given) == named({"language": given}) == code


@pytest.mark.parametrize("language", ["german", "", "de_", "x" * 50])
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
    lines[0] = "Question,Context,Answer,Title,Language"
    assert prepare("\n".join(lines).replace("de-AT", "zh_CN"), "other.csv")[0].language == "zh-CN"
    named = ["question,context,answer,title,Sprache", *lines[1:]]
    assert prepare("\n".join(named), "named.csv", columns={"language": "Sprache"})[0].language == "de-AT"


def test_a_value_that_is_no_code_is_a_fault_of_its_row_where_answers_are_scored(prepare, tmp_path):
    lines = ["id,question,context,answer,title,language"]
    lines += [f"q{n},Wodurch?,Die Donau fließt durch Wien und {n}.,Wien,Ort {n},de" for n in range(6)]
    lines.append(lines[-1].replace("q5", "q6").replace(",de", ",Deutsch"))
    with pytest.raises(UserError, match=r"train.csv: line 8 \(id 'q6'\): the language is 'Deutsch'"):
        prepare("\n".join(lines), "train.csv")
    record, languages = prepare("\n".join(lines), "train.csv", on_bad_rows="skip")
    assert record.skipped == 1 and record.language == "de" and len(languages) == 6
    # What the user says is not compared with it, and where nothing is scored it does not matter.
    assert len(prepare("\n".join(lines), "train.csv", language="de")[1]) == 7
    assert len(list(read_examples([tmp_path / "train.csv"], "qa", answers_required=False))) == 7


def test_a_file_whose_language_is_no_code_is_refused_by_name(prepare, tmp_path):
    content = {"version": "1.1", "language": "German", "data": questions_of(*ROWS)}
    with pytest.raises(UserError, match="train.json: the language is 'German'"):
        prepare(content)
    assert prepare(content, language="de")[0].language == "de"
    for language, found in (("German", None), ("de", "de")):
        save(tmp_path / "asked.json", content | {"language": language})
        asked = list(read_examples([tmp_path / "asked.json"], "qa", answers_required=False))
        assert {example.get("language") for example in asked} == {found}
    content = {"data": [article | {"language": "German"} for article in questions_of(*ROWS)]}
    with pytest.raises(
        UserError, match=r"has 6 faults.*\n  article 0 \('Ort 0'\), paragraph 0: the language"
    ):
        prepare(content)


CONTEXT = "Die Donau fließt durch Wien."


@pytest.mark.parametrize(
    "content",
    [
        [{"data": {"text": CONTEXT, "question": "?", "language": "de"}, "annotations": [{"result": [{"value": {"start": 23, "end": 27}}]}]}],
        [{"context_text": CONTEXT, "language": "de", "qas": [{"query_id": "a", "query_text": "?", "answers": ["Wien"]}]}],
        [{"context_text": CONTEXT, "qas": [{"query_id": "a", "query_text": "?", "answers": ["Wien"], "lang": "de"}]}],
        {"data": [{"title": "t", "context": CONTEXT, "language": "de", "qas": [{"id": "a", "question": "?", "answer": "Wien"}]}]},
        {"documents": [{"id": 1, "content": CONTEXT, "meta": {"language": "de"}}], "labels": [{"query": "?", "answer": "Wien", "document_id": 1}]},
        {"documents": [{"id": 1, "content": CONTEXT}], "labels": [{"query": "?", "answer": "Wien", "document_id": 1, "lang": "de"}]},
        {"context": CONTEXT, "qas": [{"qid": "1", "question": "?", "language": "de", "detected_answers": [{"text": "Wien", "char_spans": [[23, 26]]}]}]},
    ],
    ids=["label-studio", "cmrc", "cmrc question", "korquad", "haystack document", "haystack label", "mrqa"],
)  # fmt: skip
def test_other_shapes_keep_their_language(content, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content))
    (example,) = read_questions(tmp_path / "a.json").examples
    assert example["language"] == "de" and example["answers"]["text"] == ["Wien"]


def test_the_user_has_the_last_word(prepare):
    record, languages = prepare(
        {"version": "1.1", "language": "en", "data": questions_of(*ROWS)}, language="de"
    )
    assert record.language == "de" and set(languages.values()) == {"de"}
    assert any("answers are scored by the rules for de" in line for line in summary(record, "data").lines)
    lines = summary(replace(record, language="fr"), "data").lines
    assert "  answers are scored by SQuAD's rules, because none are published for fr" in lines
