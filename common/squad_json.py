"""Official SQuAD JSON (v1.1 and v2.0) → examples, with every fault named by file, article, paragraph and id."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UserError
from .files import read_text


@dataclass
class SquadFile:
    """What a file held. `repaired`: answers whose `answer_start` was wrong and could be found; `dropped`: those that
    stand nowhere or in several places of their paragraph, left out with what was said of them in `notes`."""

    path: Path
    version: str = "v1.1"
    examples: list[dict] = field(default_factory=list)
    repaired: int = 0
    dropped: int = 0
    notes: list[str] = field(default_factory=list)


def read_squad_json(path: str | Path) -> SquadFile:
    """Read a file strictly; examples have `id`, `title`, `context`, `question`, `answers` (`text`, `answer_start`).

    Raises UserError at the first fault of structure. Questions none of whose answers can be placed are left out.
    """
    path = Path(path)
    content = _parse(path, read_text(path))
    found = SquadFile(path)
    articles = _field(path, content, "data", list, "at the top")
    if not articles:
        raise UserError(f"{path}: 'data' is empty; there is no article to read.")
    found.version = _version(content, articles)
    ids: dict[str, str] = {}
    for a, article in enumerate(articles):
        place = f"article {a}"
        title = _field(path, article, "title", str, place)
        place += f" ({title!r})"
        for p, paragraph in enumerate(_field(path, article, "paragraphs", list, place)):
            here = f"{place}, paragraph {p}"
            context = _field(path, paragraph, "context", str, here)
            if not context.strip():
                raise UserError(
                    f"{path}: {here}: the context is empty; remove the paragraph or give its text."
                )
            for q, qa in enumerate(_field(path, paragraph, "qas", list, here)):
                example = _question(found, qa, f"{here}, question {q}", context)
                where = f"{here}, id {example['id']!r}"
                if example["id"] in ids:
                    raise UserError(
                        f"{path}: {where}: this id stands at {ids[example['id']]} already; ids must be unique."
                    )
                ids[example["id"]] = here
                if example.pop("kept"):
                    found.examples.append(
                        {"id": example.pop("id"), "title": title, "context": context, **example}
                    )
    if not found.examples:
        raise UserError(f"{path}: there is no usable question in it.")
    return found


def _parse(path: Path, text: str):
    if text.lstrip().startswith("<"):
        raise UserError(
            f"{path} is a web page, not JSON: the download saved a page about the file; download the file itself."
        )
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    except RecursionError:
        raise UserError(f"{path} is not SQuAD: it is nested too deeply.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not SQuAD: the top must be an object with 'version' and 'data'.")
    return content


def _version(content: dict, articles: list) -> str:
    if str(content.get("version", "")).lower().lstrip("v").startswith("2"):
        return "v2.0"
    marked = any(
        isinstance(qa, dict) and qa.get("is_impossible")
        for article in articles
        for paragraph in _listed(article, "paragraphs")
        for qa in _listed(paragraph, "qas")
    )
    return "v2.0" if marked else "v1.1"


def _listed(record, name: str) -> list:
    """The list of that name; empty where there is none, which is told of, with its place, once the file is read."""
    value = record.get(name) if isinstance(record, dict) else None
    return value if isinstance(value, list) else []


def _field(path: Path, record, name: str, kind: type, place: str):
    names = {str: "text", list: "a list", int: "a whole number"}
    if not isinstance(record, dict):
        raise UserError(f"{path}: {place} must be an object, not {type(record).__name__}.")
    if name not in record:
        raise UserError(f"{path}: {place} has no {name!r}.")
    if not isinstance(record[name], kind) or isinstance(record[name], bool):
        raise UserError(
            f"{path}: {place}: {name!r} must be {names[kind]}, not {type(record[name]).__name__}."
        )
    return record[name]


def _question(found: SquadFile, qa, place: str, context: str) -> dict:
    path = found.path
    id_ = _field(path, qa, "id", str, place)
    place = place.rpartition(",")[0] + f", id {id_!r}"
    if not id_.strip():
        raise UserError(f"{path}: {place}: the id is empty.")
    question = _field(path, qa, "question", str, place)
    if not question.strip():
        raise UserError(f"{path}: {place}: the question is empty.")
    impossible = bool(qa.get("is_impossible", False))
    listed = _field(path, qa, "answers", list, place) if not impossible or "answers" in qa else []
    if impossible and listed:
        raise UserError(f"{path}: {place} is marked is_impossible and has answers; remove one or the other.")
    if not listed and not impossible and found.version == "v1.1":
        raise UserError(
            f"{path}: {place} has no answers, which v1.1 does not allow; mark it is_impossible (v2.0) or remove it."
        )
    answers = {"text": [], "answer_start": []}
    for n, answer in enumerate(listed):
        text = _field(path, answer, "text", str, f"{place}, answer {n}")
        start = _field(path, answer, "answer_start", int, f"{place}, answer {n}")
        if not text.strip():
            raise UserError(f"{path}: {place}, answer {n}: the text is empty.")
        placed = _place(found, context, text, start, f"{place}, answer {n}")
        if placed is not None:
            answers["text"].append(text)
            answers["answer_start"].append(placed)
    return {"id": id_, "question": question, "answers": answers, "kept": bool(answers["text"] or not listed)}


def _place(found: SquadFile, context: str, text: str, start: int, place: str) -> int | None:
    """Where the answer really starts; None if that cannot be known."""
    if start >= 0 and context.startswith(text, start):
        return start
    first = context.find(text)
    if first >= 0 and context.find(text, first + 1) < 0:
        found.repaired += 1
        return first
    found.dropped += 1
    stands = "nowhere" if first < 0 else "more than once"
    found.notes.append(f"{place}: {text!r} is not at {start} and stands {stands} in the paragraph; left out")
    return None
