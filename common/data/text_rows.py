"""Files of labelled texts → rows with their places: what one file says, before labels are compared across files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from ..errors import UserError
from ..faults import Fault
from . import tables
from .columns import USUAL, Columns, Fields
from .label_values import class_names, marked, several, spelled

_NO_LABELS = {*USUAL["id"], "", "index", "unnamed: 0", "comment_id", "title", "split"}
"""Columns that no label is guessed from, in lower case."""


@dataclass(frozen=True, slots=True)
class TextRow:
    """A text, or a pair of texts, with the labels that its file gives it."""

    text: str
    text_pair: str | None
    labels: tuple[str, ...]
    """One, or any number in multi-label data, as they are spelled."""
    file: str
    place: str

    @property
    def content(self) -> tuple[str, str | None]:
        """What makes two rows the same."""
        return self.text, self.text_pair

    def fault(self, reason: str) -> Fault:
        """A fault of this row; reason: the end of a sentence."""
        return {"file": self.file, "place": self.place, "reason": reason}


@dataclass(frozen=True)
class TextFile:
    """What a file holds."""

    rows: list[TextRow]
    faults: list[Fault]
    names: tuple[str, ...]
    """The labels that the file lists itself, in its order, as `datasets` writes ClassLabels; mostly empty."""


def read_texts(path: Path, columns: Columns | None = None, multi_label: bool = False) -> TextFile:
    """The texts of a file in any of the formats of `tables`.

    columns: field → name of its column; default: the usual names. In multi-label data `label` may be several columns, joined by
    "+", each of which is a label and holds 0 or 1; without any column for labels, all that are left over are such columns.
    """
    read = RowReader.of(columns, multi_label)
    table = tables.read(path, known=read.known)
    read = read.for_table(path, table.columns)
    rows: list[TextRow] = []
    faults: list[Fault] = []
    for place, row in table.rows:
        made = row if isinstance(row, str) else read.row(row, path.name, place)
        if isinstance(made, str):
            faults.append({"file": path.name, "place": place, "reason": made})
        else:
            rows.append(made)
    return TextFile(rows, faults, read.names)


@dataclass(frozen=True)
class RowReader:
    """Takes texts and labels out of the rows of a file."""

    fields: Fields
    marks: tuple[str, ...]
    """Columns that are labels, as the user names them."""
    multi_label: bool
    names: tuple[str, ...] = ()
    """`TextFile.names`."""

    @classmethod
    def of(
        cls, columns: Columns | None, multi_label: bool, *, labels_required: bool = True, ids: bool = False
    ) -> Self:
        """The reader for `columns`, as `read_texts` takes them. ids: whether rows may have an `id`."""
        given = dict(columns or {})
        marks = tuple(given.pop("label").split("+")) if multi_label and "+" in given.get("label", "") else ()
        label_first = labels_required and not multi_label
        wanted = ("text", "label") if label_first else ("text",)
        optional = ("text_pair",) if label_first or marks else ("text_pair", "label")
        return cls(Fields(wanted, given, (*optional, *(("id",) if ids else ()))), marks, multi_label)

    @property
    def known(self) -> list[str]:
        """Columns that the user names."""
        return [*(self.fields.given or {}).values(), *self.marks]

    def for_table(self, path: Path, columns: Sequence[Any] | None) -> Self:
        """The reader of a file with these columns; None: each row has its own. UserError where one is missing."""
        if columns is None:
            return self
        found = self.fields.named(columns)
        if isinstance(found, str):
            raise UserError(f"{path}{found}")
        if missing := [mark for mark in self.marks if mark not in columns]:
            raise UserError(f"{path} has no column {missing[0]!r}, which --columns gives for label.")
        if "label" in found and not tables.is_text(path):
            return replace(self, names=class_names(path, found["label"]))
        return self

    def row(self, row: Mapping[str, Any], file: str, place: str) -> TextRow | str:
        """A row, or what is wrong with it."""
        found = self.fields.of(row)
        if isinstance(found, str):
            return found
        for field in ("text", "text_pair"):
            if field in found and (reason := text_fault(field, found[field])):
                return reason
        labels = self.labels(row, found)
        if isinstance(labels, str):
            return labels
        return TextRow(found["text"], found.get("text_pair"), tuple(labels), file, place)

    def labels(self, row: Mapping[str, Any], found: Mapping[str, Any]) -> list[str] | str:
        """The labels of a row, or what is wrong with them. found: its fields."""
        if not self.multi_label:
            return self._one_label(found["label"])
        if "label" in found:
            labels = several(found["label"])
            return labels if isinstance(labels, str) else self._named(labels)
        named = self.fields.named(row)
        used = set() if isinstance(named, str) else {*named.values()}
        marks = self.marks or [n for n in row if n not in used and n.strip().lower() not in _NO_LABELS]
        if not marks:
            return f" has no column 'label' (or {', '.join(USUAL['label'][1:])}), and none for single labels."
        return marked(row, marks)

    def _one_label(self, value: object) -> list[str] | str:
        if isinstance(value, list | tuple):
            return f": the label is the list {value!r}; prepare data with several labels for a text by --multi_label."
        if not (label := spelled(value)):
            return f": the label is {value!r}; it must be a string or an integer."
        return self._named([label])

    def _named(self, labels: Sequence[str]) -> list[str] | str:
        """Numbers as the names that the file has for them."""
        if not self.names:
            return list(labels)
        for label in labels:
            if not label.isdecimal() or int(label) >= len(self.names):
                return f": the label is {label}, which is none of the {len(self.names)} classes of this file."
        return [self.names[int(label)] for label in labels]


def text_fault(field: str, text: object) -> str:
    """What is wrong with a text, as the end of a sentence; empty if nothing is. field: `text` or `text_pair`."""
    what = "text" if field == "text" else "second text"
    if not isinstance(text, str) or not text.strip():
        state = "is empty" if text is None or isinstance(text, str) else f"is {text!r}, not text"
        return f": the {what} {state}; remove the row or give its text."
    try:
        text.encode()
    except UnicodeEncodeError:
        return f": the {what} has half of a surrogate pair; correct it."
    return ""
