"""The examples of a user's files, one after another, whatever their format."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..faults import Fault
from . import tables
from .columns import Columns, Fields
from .label_values import class_names
from .question_fields import as_id
from .question_files import stream_lines, stream_questions
from .record import Example
from .text_rows import text_fault

STDIN = "-"
"""Stands for JSON lines on the standard input."""


def read_examples(
    files: Sequence[str | Path],
    kind: str,
    *,
    columns: Columns | None = None,
    format: str = "auto",
    answers_required: bool = True,
    skipped: list[Fault] | None = None,
) -> Iterator[Example]:
    """The examples of files of a kind, in their order; files may be globs, or "-" for JSON lines on the standard input.

    kind "qa": `id`, `title`, `context`, `question` and `answers` (`text`, `answer_start`, which is -1 where the text does not stand
    so in the context). kind "text": `id`, `text`, perhaps `text_pair`, and `label` as the file spells it, or lists
    its names. Each has its `place` in
    the file for messages, and the name of its `file`. Without answers_required both answers and labels may be missing: answers
    are then empty lists, a label None.

    Tables are read in pieces; of what was read, ids are kept. columns, format: as `prepare_data.py` takes them. skipped: takes the
    faulty rows; without it the first one is refused by a UserError that names file and place. Ids must differ in all files.
    """
    seen: dict[str, str] = {}
    paths = [
        path for file in files for path in ([Path(STDIN)] if str(file) == STDIN else tables.expand([file]))
    ]
    for path in paths:
        if kind == "text":
            found = _texts(path, columns, answers_required, skipped)
        else:
            found = _questions(path, columns, format, answers_required, skipped)
        for example in found:
            if len(paths) > 1:
                if example["id"] in seen:
                    raise UserError(
                        f"id {example['id']!r} is used twice, in {seen[example['id']]} and {path}; ids must be unique."
                    )
                seen[example["id"]] = str(path)
            yield example


def _questions(
    path: Path, columns: Columns | None, form: str, answers_required: bool, skipped: list[Fault] | None
) -> Iterator[Example]:
    how: dict[str, Any] = dict(columns=columns, answers_required=answers_required, skipped=skipped)
    if str(path) == STDIN:
        questions = stream_lines(sys.stdin, "stdin", **how)
    else:
        questions = stream_questions(path, form=form, **how)
    name = "stdin" if str(path) == STDIN else path.name
    for question in questions:
        yield question.scored | {"place": question.place, "file": name}


def _texts(
    path: Path, columns: Columns | None, labels_required: bool, skipped: list[Fault] | None
) -> Iterator[Example]:
    wanted, more = ("text", "label"), ("text_pair", "id")
    fields = (
        Fields(wanted, columns, more) if labels_required else Fields(("text",), columns, ("label", *more))
    )
    name, stem = ("stdin", "stdin") if str(path) == STDIN else (path.name, path.stem)
    classes: tuple[str, ...] = ()
    if str(path) == STDIN:
        rows = tables.parse_lines(sys.stdin)
    else:
        table = tables.read(path, known=(columns or {}).values())
        rows, named = table.rows, fields.named(table.columns) if table.columns is not None else {}
        if isinstance(named, str):
            raise UserError(f"{path}{named}")
        if "label" in named and not tables.is_text(path):
            classes = class_names(path, named["label"])
    ids: set[str] = set()
    for n, (place, row) in enumerate(rows):
        values = row if isinstance(row, str) else fields.of(row)
        fault = values if isinstance(values, str) else _text_fault(values, labels_required)
        if not fault and isinstance(values, dict):
            example = _text(values, f"{stem}-{n}", classes)
            if example["id"] not in ids:
                ids.add(example["id"])
                yield example | {"place": place, "file": name}
                continue
            fault = f": the id {example['id']!r} is used twice; ids must be unique."
        if skipped is None:
            raise UserError(f"{name if str(path) == STDIN else path}: {place}{fault}")
        skipped.append({"file": name, "place": place, "reason": str(fault)})


def _text(values: dict[str, Any], id_: str, classes: Sequence[str]) -> Example:
    example: Example = {"text": values["text"]}
    if values.get("text_pair") is not None:
        example["text_pair"] = values["text_pair"]
    # By its content too: two files with the same name, in two folders, must not give the same ids.
    content = hashlib.sha256("\n".join(example.values()).encode()).hexdigest()
    example["id"] = as_id(values.get("id")) or f"{id_}-{content[:8]}"
    return example | {"label": _named(values.get("label"), classes)}


def _named(label: Any, classes: Sequence[str]) -> Any:
    """The label, by its name where the file numbers its classes and names them."""
    if isinstance(label, list):
        return [_named(each, classes) for each in label]
    return classes[label] if isinstance(label, int) and 0 <= label < len(classes) else label


def _text_fault(values: dict[str, Any], labels_required: bool) -> str:
    # A column of second texts without a value makes no pair: what a model is asked with decides whether one is missing.
    for field in ("text", *(("text_pair",) if values.get("text_pair") is not None else ())):
        if fault := text_fault(field, values.get(field)):
            return fault
    label = values.get("label")
    if labels_required and (label is None or isinstance(label, str) and not label.strip()):
        return ": the label is empty; remove the row or give its label."
    return ""
