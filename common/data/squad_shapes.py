"""Shapes of other tools for the same content → SQuAD's own shape: articles, paragraphs, questions."""

from pathlib import Path
from typing import Any

from ..errors import UserError


def as_articles(path: Path, content: Any) -> list[Any]:
    """The articles of a file in any known shape; UserError describes a shape that is not known.

    Known are SQuAD's own; flat rows (a list, or below "data") with question, context and answers; CMRC 2018's list of
    contexts; and KorQuAD 2's articles of one context each.
    """
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
    if "question" in first and "context" in first:
        return _of_rows(records)
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


def _of_rows(rows: list[Any]) -> list[Any]:
    """Rows of one question each; the rows of one title are an article, those of one context in it a paragraph."""
    articles: dict[Any, dict[Any, list[Any]]] = {}
    for row in rows:
        if not isinstance(row, dict):
            articles.setdefault(None, {}).setdefault(None, []).append(row)
            continue
        title, context = row.get("title"), row.get("context")
        row = marked(row)
        key = title if isinstance(title, str | int) else None, context if isinstance(context, str) else None
        articles.setdefault(key[0], {}).setdefault(key[1], []).append(row)
    made = []
    for title, paragraphs in articles.items():
        article = {"paragraphs": [{"context": c, "qas": qas} for c, qas in paragraphs.items()]}
        made.append(article if title is None else article | {"title": title})
    return made


def marked(row: dict[str, Any]) -> dict[str, Any]:
    """The row, marked is_impossible if its list of answers is empty, as in the hub's squad_v2."""
    answers = row.get("answers")
    texts = answers.get("text") if isinstance(answers, dict) else answers
    nothing = row.get("is_impossible") is None and isinstance(texts, list) and not texts
    return row | {"is_impossible": True} if nothing else row


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
        {"id": qa.get("query_id"), "question": qa.get("query_text"), "answers": qa.get("answers")}
        if isinstance(qa, dict)
        else qa
        for qa in record["qas"]
    ]
    title = record.get("title") or record.get("context_id")
    return {"title": title, "paragraphs": [{"context": record.get("context_text"), "qas": questions}]}


def _of_korquad(record: Any) -> object:
    """An article of one context; its questions have one `answer` each."""
    return {"title": record.get("title"), "paragraphs": [record]} if isinstance(record, dict) else record
