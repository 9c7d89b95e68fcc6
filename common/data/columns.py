"""Which column of a table holds what: by the names that the user gives, or else by the usual ones."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import UserError

Columns = Mapping[str, str]
"""Field → name of the column that holds it, as `--columns` gives them."""

USUAL: dict[str, tuple[str, ...]] = {
    "question": ("question", "query", "query_text", "question_text", "q"),
    "context": ("context", "passage", "paragraph", "document", "context_text", "article", "text"),
    "answers": ("answers", "answer", "answer_text", "answers_text", "gold_answer", "text"),
    "answer_start": ("answer_start", "answer_starts", "start"),
    "is_impossible": ("is_impossible", "unanswerable"),
    "id": ("id", "qid", "question_id", "query_id", "uid", "_id"),
    "title": ("title", "document_title", "article_title"),
    "language": ("language", "lang"),
    "text": (
        *("text", "review", "sentence", "content", "comment", "tweet"),
        *("sentence1", "premise", "question1", "text1"),
    ),
    "text_pair": ("text_pair", "sentence2", "hypothesis", "question2", "text2"),
    "label": (
        *("label", "sentiment", "labels", "target", "class", "polarity", "category", "topic", "intent"),
        *("gold_label", "is_duplicate"),
    ),
}
"""Field → usual names of its column, in upper or lower case; the first one that a table has is taken."""

_ALSO = {"answer": "answers", "impossible": "is_impossible"}
"""Other names of fields that `--columns` may have."""


def parse(given: str | Columns | None) -> Columns:
    """`question=q,context=text`, or a mapping, as a mapping of known fields; UserError if it is not of that form."""
    pairs = given.items() if isinstance(given, Mapping) else map(_pair, given.split(",")) if given else ()
    found: dict[str, str] = {}
    for name, column in pairs:
        field = _ALSO.get(name.lower(), name.lower())
        if field not in USUAL:
            raise UserError(f"--columns: there is no field {field!r}; fields are {', '.join(USUAL)}.")
        if field in found:
            raise UserError(f"--columns: {field} is given twice.")
        found[field] = column
    return found


def _pair(text: str) -> tuple[str, str]:
    field, equals, column = text.partition("=")
    if not equals or not column.strip():
        raise UserError(f"--columns: {text!r} is not FIELD=COLUMN, as in question=q,context=text.")
    return field.strip(), column.strip()


def resolve(
    column_names: Iterable[Any],
    wanted: Sequence[str],
    given: Columns | None = None,
    optional: Sequence[str] = (),
) -> dict[str, Any] | str:
    """{field: name of its column}, or what is wrong with the columns, as the end of a sentence.

    wanted: fields that have to be there; optional: fields that are left out of the result where no column has a usual name.
    A column serves one field: one that is given for a field is not guessed for another.
    """
    columns, given = list(column_names), given or {}
    by_name = {str(name).strip().lower(): name for name in reversed(columns)}
    held = ", ".join(map(repr, columns)) or "none"
    found: dict[str, Any] = {}
    for field in (*wanted, *optional):
        if field in given:
            if given[field] not in columns and given[field].lower() not in by_name:
                return f" has no column {given[field]!r}, which --columns gives for {field}; its columns are {held}."
            found[field] = given[field] if given[field] in columns else by_name[given[field].lower()]
    for field in (*wanted, *optional):
        if field in found:
            continue
        taken = set(found.values())
        names = (by_name[name] for name in USUAL[field] if name in by_name and by_name[name] not in taken)
        name = next(names, None)
        if name is not None:
            found[field] = name
        elif field in wanted:
            usual = ", ".join(USUAL[field][1:])
            return f" has no column {field!r} (or {usual}); its columns are {held}."
    return found


class Fields:
    """Takes fields out of rows whose keys may differ from row to row."""

    def __init__(self, wanted: Sequence[str], given: Columns | None = None, optional: Sequence[str] = ()):
        self.wanted, self.given, self.optional = wanted, given, optional
        self._known: dict[tuple[Any, ...], dict[str, Any] | str] = {}

    def named(self, column_names: Iterable[Any]) -> dict[str, Any] | str:
        """`resolve`, once for the same columns."""
        key = tuple(column_names)
        if key not in self._known:
            self._known[key] = resolve(key, self.wanted, self.given, self.optional)
        return self._known[key]

    def of(self, row: Mapping[Any, Any]) -> dict[str, Any] | str:
        """{field: value} of a row, or what is wrong with its columns."""
        names = self.named(row)
        return names if isinstance(names, str) else {field: row[name] for field, name in names.items()}
