"""Questions of a file in any format: tables of rows, and JSON in the shapes of SQuAD and of other tools."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..faults import Fault
from ..files import read_text
from . import tables
from .columns import Columns, resolve
from .language import of_file
from .squad_json import (
    Question,
    QuestionReader,
    SquadFile,
    collected,
    parse_json,
    read_squad_json,
    read_table_rows,
    version_of,
    version_of_rows,
)
from .squad_shapes import (
    FORMS,
    POSITIONS,
    as_articles,
    as_questions,
    flat_rows,
    is_mrqa,
    numbered,
    of_mrqa,
    row_fields,
)

_LINE = 1 << 20
"""Characters of a first line beyond which a file whose name does not end in .jsonl is a document of one line."""


def read_questions(
    path: str | Path,
    on_bad_rows: str = "error",
    *,
    columns: Columns | None = None,
    form: str = "auto",
    language: str | None = None,
) -> SquadFile:
    """Read the questions of a file. UserError names the first 20 faults by their places, and gives the number of the others.

    on_bad_rows: "error", or "skip" to leave faulty questions out and list them in `skipped`. columns: which column, or field of
    an object, holds what. form: the shape, one of `squad_shapes.FORMS`; "auto" detects it. language: of all questions,
    whatever the file says.
    """
    path = Path(path)
    kind = _kind(path, form, columns)
    if kind == "document":
        return read_squad_json(path, on_bad_rows, form, columns, language)
    if kind == "mrqa":
        found = SquadFile(path, version_named=False)
        articles = list(_mrqa(path))
        found.version = version_of(None, articles)
        return collected(found, QuestionReader(found, language=language).articles(articles), on_bad_rows)
    return read_table_rows(path, _table(path, columns), None, on_bad_rows, columns, language)


def stream_questions(
    path: str | Path,
    *,
    columns: Columns | None = None,
    form: str = "auto",
    answers_required: bool = True,
    language: str | None = None,
    skipped: list[Fault] | None = None,
) -> Iterator[Question]:
    """The questions of a file one by one, in the order of the file, with the ids that `read_questions` gives them.

    Tables and MRQA's lines are read in pieces; of what was read, the ids and their places are kept. JSON documents are held
    whole. With answers_required a file is read as far as its first question that is marked is_impossible beforehand, which
    allows others to have no answers. language: of all questions, whatever the file says. skipped: takes the faulty questions; without it the first one is refused by a UserError.
    """
    path = Path(path)
    kind, fields = _kind(path, form, columns), row_fields(columns)
    found = SquadFile(path)
    reader = QuestionReader(found, answers_required=answers_required, language=language)
    if kind == "rows":
        if answers_required:
            found.version = version_of_rows(None, as_questions(_table(path, columns), fields))
        questions = reader.rows(as_questions(_table(path, columns, answers_required), fields))
    elif kind == "mrqa":
        if answers_required:
            found.version = version_of(None, _mrqa(path))
        questions = reader.articles(_mrqa(path))
    else:
        content = _document(path)
        found.language = language or of_file(path, content, form, strict=answers_required)
        rows = flat_rows(content, form, columns)
        if rows is None:
            articles = as_articles(path, content, form, columns)
            found.version = version_of(content, articles)
            questions = reader.articles(articles)
        else:
            made = list(as_questions(numbered(rows), fields))
            found.version = version_of_rows(content, made)
            questions = reader.rows(made)
    yield from _checked(found, questions, skipped)


def stream_lines(
    lines: Iterable[str],
    name: str,
    *,
    columns: Columns | None = None,
    answers_required: bool = True,
    language: str | None = None,
    skipped: list[Fault] | None = None,
) -> Iterator[Question]:
    """`stream_questions` for lines of JSON from elsewhere, such as the standard input; `name` stands for the file."""
    found = SquadFile(Path(name))
    reader = QuestionReader(found, answers_required=answers_required, language=language)
    rows = as_questions(tables.parse_lines(lines, POSITIONS), row_fields(columns))
    yield from _checked(found, reader.rows(rows), skipped)


def _checked(
    found: SquadFile, questions: Iterator[Question], skipped: list[Fault] | None
) -> Iterator[Question]:
    """The questions, each after the faults before it."""
    for question in questions:
        _take_faults(found, skipped)
        found.notes.clear()
        yield question
    _take_faults(found, skipped)


def _take_faults(found: SquadFile, skipped: list[Fault] | None) -> None:
    for fault in found.skipped:
        if skipped is None:
            raise UserError(f"{found.path}: {fault['place']}{fault['reason']}")
        skipped.append({"file": found.path.name, **fault})
    found.skipped.clear()


def _kind(path: Path, form: str, columns: Columns | None) -> str:
    """How a file is read: "rows" of a table, "mrqa" or "document" (JSON that is held whole)."""
    if form not in FORMS:
        raise UserError(f"--format {form!r}: choose one of {', '.join(FORMS)}.")
    first = _first_line(path)
    if form == "mrqa" or form == "auto" and is_mrqa(first):
        return "mrqa"
    if form not in ("auto", "rows"):
        return "document"
    if first is _TABLE or isinstance(first, dict) and flat_rows([first], "auto", columns) is not None:
        return "rows"
    # Lines of JSON may begin with a row that has a fault.
    lines = tables.suffix(path) in (".jsonl", ".ndjson")
    nested = isinstance(first, dict) and {"paragraphs", "qas", "annotations", "data", "document"} & set(first)
    return "rows" if lines and not nested else "document"


_TABLE = object()


def _first_line(path: Path) -> Any:
    """The value of a first line that is JSON by itself; `_TABLE` if the file holds no JSON; None if the line holds a part."""
    if not tables.is_text(path):
        return _TABLE
    if tables.first_character(path) not in "{[" and tables.suffix(path) not in (".json", ".jsonl", ".ndjson"):
        return _TABLE
    lines = tables.suffix(path) in (".jsonl", ".ndjson")
    line = tables.opening_line(path, None if lines else _LINE)
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _table(path: Path, columns: Columns | None, answers_required: bool = True) -> tables.Rows:
    table = tables.read(path, known=(columns or {}).values(), positions=POSITIONS)
    wanted = ("question", "context", *(("answers",) if answers_required else ()))
    if table.columns is not None and isinstance(named := resolve(table.columns, wanted, columns), str):
        raise UserError(f"{path}{named}")
    return table.rows


def _mrqa(path: Path) -> Iterator[Any]:
    for place, line in tables.read(path).rows:
        article = of_mrqa(place, line)
        if article is not None:
            yield article


def _document(path: Path) -> Any:
    return parse_json(path, read_text(path))
