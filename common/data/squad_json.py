"""SQuAD JSON (v1.1, v2.0 and similar shapes of other tools) → examples, with every fault named by its place.

Everything that reads such a file does so here, so that one set of rules decides what is trained on, what is scored and
which version's rules apply.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..faults import Fault, refuse
from ..files import read_text
from .answer_places import first_whole, place, places
from .columns import Columns
from .language import named, of_file
from .question_fields import (
    FAULT,
    PLACE,
    Answer,
    QuestionFault,
    answers_of,
    as_flag,
    as_id,
    check_encodable,
    context_of,
    is_true,
    listed,
)
from .question_fields import field as field_of
from .record import Example
from .squad_shapes import as_articles, as_questions, flat_rows, marked, numbered, row_fields


@dataclass
class SquadFile:
    """What a file held."""

    path: Path
    version: str = "v1.1"
    version_named: bool = True
    """False for shapes that name no version, such as tables: where no question is marked is_impossible, some could be."""
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
    """A sentence for each of the first 100 of those."""
    counts: Counter[str] = field(default_factory=Counter)
    """Other corrections, by the names that the record has for them."""
    language: str | None = None
    """Of those questions that name none themselves."""
    skipped: list[Fault] = field(default_factory=list)
    """`place` and `reason` of questions that were left out because of a fault."""


class Question(NamedTuple):
    """A question of a file."""

    place: str
    scored: Example
    trained: Example | None
    """As in `SquadFile.placed`; None if none of its answers is found in its context."""


def read_squad_json(
    path: str | Path,
    on_bad_rows: str = "error",
    form: str = "auto",
    columns: Columns | None = None,
    language: str | None = None,
) -> SquadFile:
    """Read a file. UserError names the first 20 faults by their places, and gives the number of the others.

    on_bad_rows: "error", or "skip" to leave faulty questions out and list them in `skipped`. form: the shape of the content, one
    of `squad_shapes.FORMS`; "auto" detects it. language: of all questions, whatever the file says.
    """
    path = Path(path)
    content = parse_json(path, read_text(path))
    rows = flat_rows(content, form, columns)
    if rows is not None:
        return read_table_rows(path, numbered(rows), content, on_bad_rows, columns, language)
    articles = as_articles(path, content, form, columns)
    if not articles:
        raise UserError(f"{path}: there is no question in it.")
    found = SquadFile(path, version=version_of(content, articles))
    found.language = language or of_file(path, content, form)
    return collected(found, QuestionReader(found, language=language).articles(articles), on_bad_rows)


def read_table_rows(
    path: Path,
    rows: Iterable[tuple[str, Any]],
    content: Any = None,
    on_bad_rows: str = "error",
    columns: Columns | None = None,
    language: str | None = None,
) -> SquadFile:
    """Rows of one question each, with their places, in the order that SQuAD's shape has: those of one title stand together, and
    in it those of one context.

    A row may be what is wrong with it. content: of the file, which may name a version and a language. language: of all
    questions, whatever the file says.
    """
    made = list(as_questions(rows, row_fields(columns)))
    found = SquadFile(path, version_of_rows(content, made), version_named=False)
    found.language = language or of_file(path, content)
    groups: dict[str, dict[str, list[Question]]] = {}
    for question in QuestionReader(found, language=language).rows(made):
        paragraphs = groups.setdefault(question.scored["title"], {})
        paragraphs.setdefault(question.scored["context"], []).append(question)
    ordered = (q for paragraphs in groups.values() for part in paragraphs.values() for q in part)
    return collected(found, ordered, on_bad_rows)


def read_rows(
    source: Path,
    rows: list[Example],
    version: str,
    on_bad_rows: str = "error",
    language: str | None = None,
) -> SquadFile:
    """Rows of one question each, as `datasets` has them, by the rules of a file and in their order.

    source: name of the rows in faults; ids of rows that have none begin with its last part. language: of all questions,
    whatever the rows say.
    """
    found = SquadFile(source, version=version)
    return collected(found, QuestionReader(found, language=language).dataset_rows(rows), on_bad_rows)


def collected(found: SquadFile, questions: Iterable[Question], on_bad_rows: str) -> SquadFile:
    """`found` with the questions that its reader gives; UserError if there are faults and they are not skipped, or no question."""
    for question in questions:
        found.examples.append(question.scored)
        if question.trained:
            found.placed.append(question.trained)
    if on_bad_rows == "error":
        refuse(found.path, found.skipped)
    if not found.examples:
        raise UserError(f"{found.path}: there is no usable question in it.")
    return found


class QuestionReader:
    """Reads the records of a file one by one; faults and what is corrected are noted in `found`.

    answers_required: whether a question without answers that is not marked is_impossible has a fault, and one whose language
    is no code. language: of all questions, whatever the records say.
    """

    def __init__(self, found: SquadFile, *, answers_required: bool = True, language: str | None = None):
        self.found = found
        self.answers_required = answers_required
        self.language = language
        self._ids: dict[str, str] = {}

    def articles(self, articles: Iterable[Any]) -> Iterator[Question]:
        """The questions of articles in SQuAD's own shape."""
        for a, article in enumerate(articles):
            yield from self._attempt(f"article {a}", partial(self._article, a, article))

    def rows(self, rows: Iterable[tuple[str, dict[str, Any] | str]]) -> Iterator[Question]:
        """The questions of a table's rows with their places, as `as_questions` gives them."""
        for n, (place_, row) in enumerate(rows):
            yield from self._attempt(place_, partial(self._table_row, n, place_, row))

    def dataset_rows(self, rows: Iterable[Example]) -> Iterator[Question]:
        """The questions of rows with the columns of the hub's `squad`."""
        for n, row in enumerate(rows):
            name = f"row {n} (id {as_id(row.get('id'))!r})"
            yield from self._attempt(name, partial(self._dataset_row, row, name, n))

    def _attempt(self, place_: str, read: Callable[[], Iterator[Question]]) -> Iterator[Question]:
        """What a record gives; if it has a fault, that is noted, so that the next record is read."""
        try:
            yield from read()
        except QuestionFault as fault:
            self.found.skipped.append({"place": place_, "reason": str(fault)})

    def _dataset_row(self, row: Example, place_: str, n: int) -> Iterator[Question]:
        context = context_of(row)
        # Without a title, each paragraph is an article.
        title = context if row.get("title") is None else str(row["title"])
        yield self._question(title, context, marked(row), place_, (n,), self._language(row))

    def _table_row(self, n: int, place_: str, values: dict[str, Any] | str) -> Iterator[Question]:
        if isinstance(values, str):
            raise QuestionFault(values)
        if name := as_id(values.get("id")):
            place_ = f"{place_} (id {name!r})"
        try:
            title = as_id(values.get("title"))
            if not title:
                # Rows without a title are one article.
                title = made_title(self.found.path)
                self.found.counts["made_titles"] = max(1, self.found.counts["made_titles"])
            spoken = self._language(values)
            yield self._question(title, context_of(values), values, place_, (n,), spoken)
        except QuestionFault as fault:
            self.found.skipped.append({"place": place_, "reason": str(fault)})

    def _article(self, a: int, article: Any) -> Iterator[Question]:
        if not isinstance(article, dict):
            raise QuestionFault(f" must be an object, not {type(article).__name__}.")
        if FAULT in article:
            self.found.skipped.append({"place": article[PLACE], "reason": article[FAULT]})
            return
        title = next(
            (article[name] for name in ("title", "document_title", "name") if article.get(name)), None
        )
        if title is None:
            self.found.counts["made_titles"] += 1
            title = f"{self.found.path.stem} {article.get('document_id', a)}"
        title = str(title)
        here = article.get(PLACE) or f"article {a} ({title!r})"
        try:
            paragraphs = field_of(article, "paragraphs", list)
        except QuestionFault as fault:
            self.found.skipped.append({"place": here, "reason": str(fault)})
            return
        for p, paragraph in enumerate(paragraphs):
            place_ = here if PLACE in article else f"{here}, paragraph {p}"
            yield from self._attempt(
                place_, partial(self._paragraph, article, title, place_, paragraph, (a, p))
            )

    def _paragraph(
        self, article: Any, title: str, here: str, paragraph: Any, number: tuple[int, int]
    ) -> Iterator[Question]:
        context, language = context_of(paragraph), self._language(article, paragraph)
        for q, qa in enumerate(field_of(paragraph, "qas", list)):
            place_ = f"{here}, question {q}"
            if isinstance(qa, dict) and as_id(qa.get("id")):
                place_ = f"{here}, id {as_id(qa['id'])!r}"
            try:
                spoken = self._language(qa) or language
                yield self._question(title, context, qa, place_, (*number, q), spoken)
            except QuestionFault as fault:
                self.found.skipped.append({"place": place_, "reason": str(fault)})

    def _language(self, *records: Any) -> str | None:
        """The language that records name, outermost first."""
        if self.language:
            return self.language
        try:
            return named(*records)
        except QuestionFault:
            # It decides how answers are compared, and nothing else.
            if self.answers_required:
                raise
            return None

    def _question(
        self,
        title: str,
        context: str,
        qa: Any,
        place_: str,
        number: tuple[int, ...],
        language: str | None,
    ) -> Question:
        if not isinstance(qa, dict):
            raise QuestionFault(f" must be an object, not {type(qa).__name__}.")
        question = field_of(qa, "question", str)
        if not question.strip():
            raise QuestionFault(": the question is empty.")
        impossible = as_flag(qa.get("is_impossible"))
        listed = answers_of(qa, required=not impossible and self.answers_required)
        given = [answer for answer in listed if answer.text.strip()]
        if impossible and given:
            raise QuestionFault(" is marked is_impossible and has answers; remove one or the other.")
        if not given and not impossible and self.answers_required and self.found.version == "v1.1":
            raise QuestionFault(
                ": the text of each answer is empty."
                if listed
                else " has no answers, which v1.1 does not allow; mark it is_impossible (v2.0) or remove it."
            )
        id_ = as_id(qa.get("id"))
        if not id_:
            # By its content too: two files with the same name, in two folders, must not give the same ids.
            content = hashlib.sha256(f"{context}\n{question}".encode("utf-8", "surrogatepass"))
            id_ = "-".join(map(str, (self.found.path.stem, *number, content.hexdigest()[:8])))
        if id_ in self._ids:
            raise QuestionFault(f": this id is already used at {self._ids[id_]}; ids must be unique.")
        check_encodable(id_, title, context, question, *(answer.text for answer in listed))
        self._ids[id_] = place_
        self.found.counts["made_ids"] += not as_id(qa.get("id"))
        self.found.counts["empty_answers"] += len(listed) - len(given) if not impossible else 0
        example = {"id": id_, "title": title, "context": context, "question": question}
        if language := language or self.found.language:
            example["language"] = language
        return self._with_answers(example, [] if impossible else listed if given else [], place_)

    def _with_answers(self, example: Example, listed: list[Answer], place_: str) -> Question:
        context = example["context"]
        scored, trained = _no_answers(), _no_answers()
        for n, answer in enumerate(listed):
            at = self._place(context, answer, f"{place_}, answer {n}") if answer.trained else None
            exact = at is not None and context[at[0] : at[1]] == answer.text
            if answer.scored:
                # One without text, too: the official script of v1.1 counts it as a reference.
                scored["text"].append(answer.text)
                scored["answer_start"].append(at[0] if at and exact else -1)
            if at is not None:
                trained["text"].append(context[at[0] : at[1]])
                trained["answer_start"].append(at[0])
        usable = trained["text"] or not listed
        return Question(
            place_, example | {"answers": scored}, example | {"answers": trained} if usable else None
        )

    def _place(self, context: str, answer: Answer, place_: str) -> tuple[int, int] | None:
        """Where an answer stands in its context; what had to be corrected is counted, and noted if it is not found."""
        found, (text, start, *_) = self.found, answer
        if not text.strip():
            return None
        everywhere = places(context, text) if start < 0 else []
        at = place(context, text, start) if start >= 0 else first_whole(context, everywhere)
        if at is None:
            found.dropped += 1
            if len(found.notes) < MOST_NOTES:
                where = f"is neither at {start} nor elsewhere" if start >= 0 else "is not found"
                found.notes.append(
                    f"{found.path}: {place_}: {text!r} {where} in the paragraph; left out of training"
                )
            return None
        exact = context[at[0] : at[1]] == text
        found.repaired += not exact or start >= 0 and at[0] != start
        if start < 0:
            found.counts["located"] += 1
            found.counts["ambiguous"] += len(everywhere) > 1
        return at


MOST_NOTES = 100


def made_title(path: Path) -> str:
    """The title of the rows of a table that have none."""
    return f"{path.stem} 0"


def _no_answers() -> dict[str, list[Any]]:
    return {"text": [], "answer_start": []}


def parse_json(path: Path, text: str) -> Any:
    """The content of a JSON document, or a list of the values of its lines."""
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


def version_of(content: Any, articles: Iterable[Any]) -> str:
    """v2.0 if the file names it or has a question that is marked impossible; a date ("2020-04-23") names no version."""
    marks = any(
        isinstance(qa, dict) and is_true(qa.get("is_impossible"))
        for article in articles
        for paragraph in listed(article, "paragraphs")
        for qa in listed(paragraph, "qas")
    )
    return "v2.0" if marks else _named_version(content)


def version_of_rows(content: Any, rows: Iterable[tuple[str, dict[str, Any] | str]]) -> str:
    """`version_of` for rows of one question each, as `as_questions` gives them."""
    marks = any(isinstance(row, dict) and is_true(row.get("is_impossible")) for _, row in rows)
    return "v2.0" if marks else _named_version(content)


def _named_version(content: Any) -> str:
    named = content.get("version") if isinstance(content, dict) else None
    return "v2.0" if re.fullmatch(r"v?2(\.\d+)*", str(named).strip().lower()) else "v1.1"
