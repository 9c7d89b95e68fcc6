"""SQuAD JSON (v1.1, v2.0 and similar shapes of other tools) → examples, with every fault named by its place.

Everything that reads such a file does so here, so that one set of rules decides what is trained on, what is scored and
which version's rules apply.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UserError
from ..faults import Fault, refuse
from ..files import read_text
from .answer_places import place
from .record import Example
from .squad_shapes import as_articles, marked

Kind = TypeVar("Kind")

KINDS: dict[type, str] = {str: "text", list: "a list", int: "a whole number"}


@dataclass
class SquadFile:
    """What a file held."""

    path: Path
    version: str = "v1.1"
    examples: list[Example] = field(default_factory=list)
    """`id`, `title`, `context`, `question`, `answers`: the references as the file gives them (`text`), with the place of that
    text in the context as `answer_start`, or -1. Scores are computed from these."""
    placed: list[Example] = field(default_factory=list)
    """The examples to train on: each answer is context[answer_start : answer_start + len(text)]. Questions
    without any such answer are left out."""
    repaired: int = 0
    """Answers with a wrong offset, or whose text differs from the context in case, white space or normalisation."""
    dropped: int = 0
    """Answers that were not found in the context; they are left out of training and stay in scoring."""
    notes: list[str] = field(default_factory=list)
    """A sentence for each of those."""
    counts: Counter[str] = field(default_factory=Counter)
    """Other corrections: `empty_answers` left out, `made_ids`, `made_titles`."""
    skipped: list[Fault] = field(default_factory=list)
    """`place` and `reason` of questions that were left out because of a fault."""


class _Fault(Exception):
    """A fault of one record."""


def read_squad_json(path: str | Path, on_bad_rows: str = "error") -> SquadFile:
    """Read a file. UserError names the first 20 faults by article, paragraph and id, and gives the number of the others.

    on_bad_rows: "error", or "skip" to leave faulty questions out and list them in `skipped`.
    """
    path = Path(path)
    content = _parse(path, read_text(path))
    articles = as_articles(path, content)
    if not articles:
        raise UserError(f"{path}: 'data' is empty; there is no article to read.")
    found = SquadFile(path, version=_version(content, articles))
    _Reader(found).read(articles)
    return _usable(found, on_bad_rows)


def read_rows(source: Path, rows: list[Example], version: str, on_bad_rows: str = "error") -> SquadFile:
    """Rows of one question each, as `datasets` has them, by the rules of a file and in their order.

    source: name of the rows in faults; ids of rows that have none begin with its last part.
    """
    found = SquadFile(source, version=version)
    _Reader(found).read_rows(rows)
    return _usable(found, on_bad_rows)


def _usable(found: SquadFile, on_bad_rows: str) -> SquadFile:
    if on_bad_rows == "error":
        refuse(found.path, found.skipped)
    if not found.examples:
        raise UserError(f"{found.path}: there is no usable question in it.")
    return found


class _Reader:
    def __init__(self, found: SquadFile):
        self.found = found
        self.ids: dict[str, str] = {}

    def read(self, articles: list[Any]) -> None:
        for a, article in enumerate(articles):
            self._attempt(f"article {a}", self._article, a, article)

    def read_rows(self, rows: list[Example]) -> None:
        for n, row in enumerate(rows):
            name = f"row {n} (id {_as_id(row.get('id'))!r})"
            self._attempt(name, self._row, row, name, n)

    def _row(self, row: Example, place_: str, n: int) -> None:
        context = _context(row)
        # Without a title, each paragraph is an article.
        title = context if row.get("title") is None else str(row["title"])
        self._question(title, context, marked(row), place_, (n,))

    def _attempt(self, place_: str, read: Callable[..., None], *args: object) -> None:
        """Read a record; if it has a fault, note it, so that the next record is read."""
        try:
            read(*args)
        except _Fault as fault:
            self.found.skipped.append({"place": place_, "reason": str(fault)})

    def _article(self, a: int, article: Any) -> None:
        if not isinstance(article, dict):
            raise _Fault(f" must be an object, not {type(article).__name__}.")
        title = next(
            (article[name] for name in ("title", "document_title", "name") if article.get(name)), None
        )
        if title is None:
            self.found.counts["made_titles"] += 1
            title = f"{self.found.path.stem} {article.get('document_id', a)}"
        title, here = str(title), f"article {a}"
        here += f" ({title!r})"
        try:
            paragraphs = _field(article, "paragraphs", list)
        except _Fault as fault:
            self.found.skipped.append({"place": here, "reason": str(fault)})
            return
        for p, paragraph in enumerate(paragraphs):
            self._attempt(
                f"{here}, paragraph {p}", self._paragraph, title, f"{here}, paragraph {p}", paragraph, (a, p)
            )

    def _paragraph(self, title: str, here: str, paragraph: Any, number: tuple[int, int]) -> None:
        context = _context(paragraph)
        for q, qa in enumerate(_field(paragraph, "qas", list)):
            place_ = f"{here}, question {q}"
            if isinstance(qa, dict) and _as_id(qa.get("id")):
                place_ = f"{here}, id {_as_id(qa['id'])!r}"
            self._attempt(place_, self._question, title, context, qa, place_, (*number, q))

    def _question(self, title: str, context: str, qa: Any, place_: str, number: tuple[int, ...]) -> None:
        if not isinstance(qa, dict):
            raise _Fault(f" must be an object, not {type(qa).__name__}.")
        question = _field(qa, "question", str)
        if not question.strip():
            raise _Fault(": the question is empty.")
        impossible = _as_flag(qa.get("is_impossible"))
        listed = _answers(qa, required=not impossible)
        given = [(text, start) for text, start in listed if text.strip()]
        if impossible and given:
            raise _Fault(" is marked is_impossible and has answers; remove one or the other.")
        if not given and not impossible and self.found.version == "v1.1":
            raise _Fault(
                ": the text of each answer is empty."
                if listed
                else " has no answers, which v1.1 does not allow; mark it is_impossible (v2.0) or remove it."
            )
        id_ = _as_id(qa.get("id"))
        if not id_:
            # By its content too: two files with the same name, in two folders, must not give the same ids.
            content = hashlib.sha256(f"{context}\n{question}".encode("utf-8", "surrogatepass"))
            id_ = "-".join(map(str, (self.found.path.stem, *number, content.hexdigest()[:8])))
        if id_ in self.ids:
            raise _Fault(f": this id is already used at {self.ids[id_]}; ids must be unique.")
        _check_encodable(id_, title, context, question, *(text for text, _ in listed))
        self.ids[id_] = place_
        self.found.counts["made_ids"] += not _as_id(qa.get("id"))
        self.found.counts["empty_answers"] += len(listed) - len(given) if not impossible else 0
        example = {"id": id_, "title": title, "context": context, "question": question}
        self._add(example, [] if impossible else listed if given else [], place_)

    def _add(self, example: Example, listed: list[tuple[str, int]], place_: str) -> None:
        found, context = self.found, example["context"]
        scored, trained = _no_answers(), _no_answers()
        for n, (text, start) in enumerate(listed):
            if not text.strip():
                # The official script of v1.1 counts it as a reference.
                scored["text"].append(text)
                scored["answer_start"].append(-1)
                continue
            at = place(context, text, start)
            exact = at is not None and context[at[0] : at[1]] == text
            scored["text"].append(text)
            scored["answer_start"].append(at[0] if at and exact else -1)
            if at is None:
                found.dropped += 1
                found.notes.append(
                    f"{place_}, answer {n}: {text!r} is not at {start} and is "
                    f"{'more than once' if context.count(text) > 1 else 'nowhere'} in the paragraph; left out of training"
                )
                continue
            found.repaired += at[0] != start or not exact
            trained["text"].append(context[at[0] : at[1]])
            trained["answer_start"].append(at[0])
        found.examples.append(example | {"answers": scored})
        if trained["text"] or not listed:
            found.placed.append(example | {"answers": trained})


def _no_answers() -> dict[str, list[Any]]:
    return {"text": [], "answer_start": []}


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            try:
                return [json.loads(line) for line in text.split("\n") if line.strip()]
            except (ValueError, RecursionError):
                pass
        raise UserError(
            f"{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    except ValueError:
        raise UserError(f"{path} is not SQuAD: a number in it has thousands of digits.") from None
    except RecursionError:
        raise UserError(f"{path} is not SQuAD: it is nested too deeply.") from None


def _version(content: Any, articles: list[Any]) -> str:
    """v2.0 if the file names it or has a question that is marked impossible; a date ("2020-04-23") names no version."""
    named = content.get("version") if isinstance(content, dict) else None
    if re.fullmatch(r"v?2(\.\d+)*", str(named).strip().lower()):
        return "v2.0"
    marked = any(
        isinstance(qa, dict) and _is_true(qa.get("is_impossible"))
        for article in articles
        for paragraph in _listed(article, "paragraphs")
        for qa in _listed(paragraph, "qas")
    )
    return "v2.0" if marked else "v1.1"


def _listed(record: Any, name: str) -> list[Any]:
    """The list of that name; empty if there is none, which is reported with its place when the file is read."""
    value = record.get(name) if isinstance(record, dict) else None
    return value if isinstance(value, list) else []


def _field(record: Any, name: str, kind: type[Kind]) -> Kind:
    if not isinstance(record, dict):
        raise _Fault(f" must be an object, not {type(record).__name__}.")
    if name not in record:
        raise _Fault(f" has no {name!r}.")
    if not isinstance(record[name], kind) or isinstance(record[name], bool):
        raise _Fault(f": {name!r} must be {KINDS[kind]}, not {type(record[name]).__name__}.")
    found: Kind = record[name]
    return found


def _context(record: Any) -> str:
    context = _field(record, "context", str)
    if not context.strip():
        raise _Fault(": the context is empty; remove the paragraph or give its text.")
    return context


def _check_encodable(*texts: str) -> None:
    r"""JSON can spell half of a surrogate pair ("\ud83d"), which is no character and cannot be stored."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise _Fault(
            ": its title, context, question, id or an answer has half of a surrogate pair; correct the text."
        ) from None


def _as_id(value: Any) -> str:
    """An id as text; empty if there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value) if str(value).strip() else ""


def _as_flag(value: Any) -> bool:
    if value in (None, False, 0, "", "0") or isinstance(value, str) and value.lower() == "false":
        return False
    if _is_true(value):
        return True
    raise _Fault(f": 'is_impossible' must be true or false, not {value!r}.")


def _is_true(value: Any) -> bool:
    return value in (True, 1, "1") or isinstance(value, str) and value.lower() == "true"


def _answers(qa: dict[str, Any], *, required: bool) -> list[tuple[str, int]]:
    """(text, start) of each answer; start is -1 if none is given."""
    if "answers" not in qa and "answer" in qa:
        qa = qa | {"answers": [qa["answer"]] if isinstance(qa["answer"], str) else qa["answer"]}
    answers = qa.get("answers")
    if not answers and not required:
        return []
    if isinstance(answers, dict) and isinstance(answers.get("text"), list):
        # As `datasets` has them.
        starts = answers.get("answer_start")
        starts = [-1] * len(answers["text"]) if starts is None else starts
        if not isinstance(starts, list) or len(starts) != len(answers["text"]):
            raise _Fault(": 'answers' must hold as many 'answer_start' as 'text'.")
        answers = [{"text": t, "answer_start": s} for t, s in zip(answers["text"], starts, strict=True)]
    elif isinstance(answers, dict):
        answers = [answers]
    found = []
    for n, answer in enumerate(
        _field(qa | {"answers": answers} if answers is not None else qa, "answers", list)
    ):
        if isinstance(answer, str):
            answer = {"text": answer}
        try:
            if answer is not None and isinstance(answer, dict) and answer.get("text") is None:
                answer = answer | {"text": ""} if "text" in answer else answer
            found.append((_field(answer, "text", str), _start(answer)))
        except _Fault as fault:
            raise _Fault(f", answer {n}{fault}") from None
    return found


def _start(answer: dict[str, Any]) -> int:
    start = answer.get("answer_start")
    if start is None or isinstance(start, str) and not start.strip() or start != start:
        return -1
    if isinstance(start, str) and re.fullmatch(r"\s*-?\d{1,9}(\.0*)?\s*", start):
        start = float(start)
    if isinstance(start, float) and start.is_integer():
        start = int(start)
    if isinstance(start, bool) or not isinstance(start, int):
        raise _Fault(f": 'answer_start' must be a whole number, not {type(start).__name__}.")
    return max(start, -1)
