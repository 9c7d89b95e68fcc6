"""Shapes of other tools for the same content → SQuAD's own shape: articles, paragraphs, questions; and rows of one question.

Nothing here reports what is wrong with a record: it is passed on, for the reader to report with its place.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from .annotation_exports import is_haystack, is_label_studio, of_haystack, of_label_studio
from .columns import Columns, Fields, resolve
from .language import kept
from .question_fields import FAULT, PLACE, REFERENCES, answers_of_row, of_cell

POSITIONS = ("question", "context", "answers", "answer_start")
"""What the values of a row that is a list are."""

FORMS = (
    *("auto", "rows", "squad", "mrqa", "haystack", "label-studio"),
    *("korquad", "cmrc", "drcd", "tydiqa", "cuad"),
)
"""Names of the shapes, as `--format` takes them."""

_LIKE_SQUAD = ("squad", "korquad", "cmrc", "drcd", "tydiqa", "cuad")
"""Data sets in SQuAD's shape, with further keys or other names in it; all of them are told apart by their content."""


def row_fields(columns: Columns | None = None) -> Fields:
    """What takes a question out of a table's row."""
    optional = ("answers", "answer_start", "is_impossible", "id", "title", "language")
    return Fields(("question", "context"), columns, optional)


def as_questions(
    rows: Iterable[tuple[str, dict[Any, Any] | str]], fields: Fields
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """`as_question` of each row, with its place; a row that is a text says what is wrong with it."""
    for place, row in rows:
        yield place, row if isinstance(row, str) else as_question(row, fields)


def as_question(row: dict[Any, Any], fields: Fields) -> dict[str, Any] | str:
    """A row of a table as SQuAD has a question, with its `context`, `title` and `language`; or what is wrong with the row's columns."""
    values = fields.of(row)
    if isinstance(values, str):
        return values
    answers, start = of_cell(values.get("answers"), str, dict), values.pop("answer_start", None)
    if "answers" in values:
        values["answers"] = answers_of_row(answers, start) or []
    return values | {"is_impossible": marked(values | {"answers": answers}).get("is_impossible")}


def flat_rows(content: Any, form: str = "auto", columns: Columns | None = None) -> list[Any] | None:
    """The rows of a file that holds rows of one question each, as a list or below "data"; None if it holds something else."""
    records = content.get("data") if isinstance(content, dict) else content
    if form not in ("auto", "rows") or not isinstance(records, list):
        return None
    first = next((record for record in records if isinstance(record, dict)), None)
    if first is None:
        lists = [record for record in records if isinstance(record, list)]
        if not lists or len(lists[0]) < 2 or not all(isinstance(value, str) for value in lists[0][:2]):
            return None
        return [dict(zip(POSITIONS, row, strict=False)) if isinstance(row, list) else row for row in records]
    named = resolve(first, ("question", "context"), columns)
    nested = {"paragraphs", "qas", "annotations", "document"} & set(first)
    return records if form == "rows" or isinstance(named, dict) and not nested else None


def numbered(rows: list[Any]) -> Iterator[tuple[str, Any]]:
    """(place, row, or what is wrong with it) of each of the rows that `flat_rows` gave."""
    for n, row in enumerate(rows):
        yield (
            f"row {n}",
            row if isinstance(row, dict) else f" must be an object, not {type(row).__name__}.",
        )


def marked(row: dict[str, Any]) -> dict[str, Any]:
    """The row, marked is_impossible if its list of answers is empty, as in the hub's squad_v2."""
    answers = row.get("answers")
    texts = answers.get("text") if isinstance(answers, dict) else answers
    nothing = row.get("is_impossible") in (None, "") and isinstance(texts, list) and not texts
    return row | {"is_impossible": True} if nothing else row


def as_articles(path: Path, content: Any, form: str = "auto", columns: Columns | None = None) -> list[Any]:
    """The articles of a file in any shape but that of rows; UserError describes a shape that is not known, or not `form`.

    Known are SQuAD's own; the exports of haystack's annotation tool and of Label Studio; CMRC 2018's list of contexts; and
    KorQuAD 2's articles of one context each. columns: names of the fields of a Label Studio task.
    """
    for name, fits, convert in _EXPORTS:
        if form in ("auto", name) and fits(content):
            return convert(content, columns)
    if form not in ("auto", *_LIKE_SQUAD) and not (form == "haystack" and _has_articles(content)):
        raise UserError(f"{path} does not have the shape {form}; leave --format out to let it be detected.")
    records = content.get("data") if isinstance(content, dict) else content
    if isinstance(content, dict) and "data" not in content:
        held = ", ".join(map(repr, list(content)[:5])) or "nothing"
        raise UserError(
            f"{path} is not SQuAD: there is no 'data' at the top, which holds {held}; SQuAD is "
            '{"version": ..., "data": [{"title": ..., "paragraphs": [...]}]}.'
        )
    if not isinstance(records, list):
        at = "'data'" if isinstance(content, dict) else "the top"
        raise UserError(
            f"{path} is not SQuAD: {at} must be a list of articles, not {type(records).__name__}."
        )
    first = next((record for record in records if isinstance(record, dict)), {})
    if "paragraphs" in first:
        return records
    if "context_text" in first:
        return [_of_cmrc(record) for record in records]
    if "qas" in first and "context" in first:
        return [_of_korquad(record) for record in records]
    if isinstance(content, list) and records:
        held = ", ".join(map(repr, list(first)[:6])) or type(records[0]).__name__
        raise UserError(
            f"{path} is a list of records with {held}, which is not a known shape of SQuAD; rows need question, "
            "context and answers."
        )
    return records


_EXPORTS: tuple[tuple[str, Callable[[Any], bool], Callable[[Any, Columns | None], list[Any]]], ...] = (
    ("haystack", is_haystack, of_haystack),
    ("label-studio", is_label_studio, of_label_studio),
)


def _has_articles(content: Any) -> bool:
    records = content.get("data") if isinstance(content, dict) else None
    return isinstance(records, list) and any(
        isinstance(each, dict) and "paragraphs" in each for each in records
    )


def _of_cmrc(record: Any) -> object:
    if not isinstance(record, dict):
        return record
    if not isinstance(record.get("qas"), list):
        # The reader reports what is wrong with it.
        return {
            "title": record.get("title"),
            "paragraphs": [{**record, "context": record.get("context_text")}],
        }
    questions = [
        {"id": qa.get("query_id"), "question": qa.get("query_text"), "answers": qa.get("answers"), **kept(qa)}
        if isinstance(qa, dict)
        else qa
        for qa in record["qas"]
    ]
    title = record.get("title") or record.get("context_id")
    paragraph = {"context": record.get("context_text"), "qas": questions, **kept(record)}
    return {"title": title, "paragraphs": [paragraph]}


def _of_korquad(record: Any) -> object:
    """An article of one context; its questions have one `answer` each."""
    return {"title": record.get("title"), "paragraphs": [record]} if isinstance(record, dict) else record


def is_mrqa(first_line: Any) -> bool:
    """Whether a file of JSON lines whose first line is this is one of MRQA 2019."""
    if not isinstance(first_line, dict):
        return False
    qas = first_line.get("qas")
    questions = qas if isinstance(qas, list) else []
    return isinstance(first_line.get("header"), dict) or any(
        isinstance(qa, dict) and "detected_answers" in qa for qa in questions
    )


def of_mrqa(place: str, line: Any) -> object | None:
    """A line of an MRQA 2019 file as an article; None for its header.

    The first span of each detected answer is trained on; its ends are inclusive. Predictions are scored by the accepted
    `answers`, as the official script does. Source: "Dataset Format" of github.com/mrqa/MRQA-Shared-Task-2019.
    """
    if not isinstance(line, dict):
        return {PLACE: place, FAULT: line if isinstance(line, str) else " must be an object."}
    if "header" in line and "context" not in line:
        return None
    context, qas = line.get("context"), line.get("qas")
    if isinstance(context, str) and isinstance(qas, list):
        line = line | {"qas": [_of_mrqa_question(context, qa) if isinstance(qa, dict) else qa for qa in qas]}
    return {PLACE: place, "paragraphs": [line]}


def _of_mrqa_question(context: str, qa: dict[str, Any]) -> dict[str, Any]:
    accepted, detected = qa.get("answers"), qa.get("detected_answers")
    found = [_detected(context, each) for each in detected] if isinstance(detected, list) else []
    made = {"id": qa.get("qid") or qa.get("id"), "question": qa.get("question"), "answers": found or accepted}
    made |= {"is_impossible": qa.get("is_impossible"), **kept(qa)}
    return made | ({REFERENCES: accepted} if found and accepted else {})


def _detected(context: str, answer: Any) -> Any:
    try:
        start, end = answer["char_spans"][0]
        if 0 <= start <= end < len(context):
            return {"text": context[start : end + 1], "answer_start": start}
    except (KeyError, IndexError, TypeError, ValueError):
        pass
    return {"text": answer.get("text")} if isinstance(answer, dict) else answer
