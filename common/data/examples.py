"""The examples of a user's files, one after another, whatever their format."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..faults import Fault
from . import tables
from .columns import Columns
from .question_fields import as_id
from .question_files import stream_lines, stream_questions
from .record import Example
from .text_rows import RowReader, text_fault

STDIN = "-"
"""Stands for JSON lines on the standard input."""


def read_examples(
    files: Sequence[str | Path],
    kind: str,
    *,
    columns: Columns | None = None,
    format: str = "auto",
    answers_required: bool = True,
    multi_label: bool = False,
    language: str | None = None,
    skipped: list[Fault] | None = None,
) -> Iterator[Example]:
    """The examples of files of a kind, in their order; files may be globs, or "-" for JSON lines on the standard input.

    kind "qa": `id`, `title`, `context`, `question` and `answers` (`text`, `answer_start`, which is -1 where the text does not stand
    so in the context). kind "text": `id`, `text`, perhaps `text_pair`, and `label` as the file spells it, or, with multi_label,
    the list of its labels' names, which is empty where a text has none. Each has its `place` in the file for messages, and
    the name of its `file`. Without answers_required both answers and labels may be missing: answers are then empty lists, a
    label None.

    Tables are read in pieces; of what was read, ids and their places are kept. columns, format, multi_label,
    language: as `prepare_data.py` takes them. skipped: takes the faulty rows; without it the first one is refused by a UserError that
    names file and place. Ids must differ in all files.
    """
    seen: dict[str, str] = {}
    paths = [
        path for file in files for path in ([Path(STDIN)] if str(file) == STDIN else tables.expand([file]))
    ]
    for path in paths:
        if kind == "text":
            found = _texts(path, columns, answers_required, multi_label, skipped)
        else:
            found = _questions(path, columns, format, answers_required, language, skipped)
        for example in found:
            if len(paths) > 1:
                if example["id"] in seen:
                    raise UserError(
                        f"id {example['id']!r} is used twice, in {seen[example['id']]} and {path}; ids must be unique."
                    )
                seen[example["id"]] = str(path)
            yield example


def _questions(
    path: Path,
    columns: Columns | None,
    form: str,
    answers_required: bool,
    language: str | None,
    skipped: list[Fault] | None,
) -> Iterator[Example]:
    how: dict[str, Any] = dict(
        columns=columns, answers_required=answers_required, language=language, skipped=skipped
    )
    if str(path) == STDIN:
        questions = stream_lines(sys.stdin, "stdin", **how)
    else:
        questions = stream_questions(path, form=form, **how)
    name = "stdin" if str(path) == STDIN else path.name
    for question in questions:
        yield question.scored | {"place": question.place, "file": name}


def _texts(
    path: Path,
    columns: Columns | None,
    labels_required: bool,
    multi_label: bool,
    skipped: list[Fault] | None,
) -> Iterator[Example]:
    read = RowReader.of(columns, multi_label, labels_required=labels_required, ids=True)
    name, stem = ("stdin", "stdin") if str(path) == STDIN else (path.name, path.stem)
    if str(path) == STDIN:
        rows = tables.parse_lines(sys.stdin)
    else:
        table = tables.read(path, known=read.known)
        rows, read = table.rows, read.for_table(path, table.columns)
    ids: set[str] = set()
    for n, (place, row) in enumerate(rows):
        example = row if isinstance(row, str) else _text(row, read, f"{stem}-{n}", labels_required)
        fault = example if isinstance(example, str) else ""
        if isinstance(example, dict):
            if example["id"] not in ids:
                ids.add(example["id"])
                yield example | {"place": place, "file": name}
                continue
            fault = f": the id {example['id']!r} is used twice; ids must be unique."
        if skipped is None:
            raise UserError(f"{name if str(path) == STDIN else path}: {place}{fault}")
        skipped.append({"file": name, "place": place, "reason": str(fault)})


def _text(row: Mapping[str, Any], read: RowReader, id_: str, label_required: bool) -> Example | str:
    """The example of a row, or what is wrong with it."""
    values = read.fields.of(row)
    if isinstance(values, str):
        return values
    if fault := _text_fault(values, label_required and not read.multi_label):
        return fault
    example: Example = {"text": values["text"]}
    if values.get("text_pair") is not None:
        example["text_pair"] = values["text_pair"]
    # By its content too: two files with the same name, in two folders, must not give the same ids.
    content = hashlib.sha256("\n".join(example.values()).encode()).hexdigest()
    example["id"] = as_id(values.get("id")) or f"{id_}-{content[:8]}"
    if not read.multi_label:
        return example | {"label": _named(values.get("label"), read.names)}
    labels = read.labels(row, values)
    if isinstance(labels, str):
        return labels if label_required else example | {"label": None}
    return example | {"label": labels}


def _named(label: Any, classes: Sequence[str]) -> Any:
    """The label, by its name where the file numbers its classes and names them."""
    if isinstance(label, list):
        return [_named(each, classes) for each in label]
    return classes[label] if isinstance(label, int) and 0 <= label < len(classes) else label


def _text_fault(values: Mapping[str, Any], label_required: bool) -> str:
    # A column of second texts without a value makes no pair: what a model is asked with decides whether one is missing.
    for field in ("text", *(("text_pair",) if values.get("text_pair") is not None else ())):
        if fault := text_fault(field, values.get(field)):
            return fault
    label = values.get("label")
    if label_required and (label is None or isinstance(label, str) and not label.strip()):
        return ": the label is empty; remove the row or give its label."
    return ""
