"""The examples of a user's files, one after another, whatever their format."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import UserError
from ..faults import Fault
from .labelled_texts import LABELS, read_files
from .record import Example
from .squad_json import read_squad_json


def read_examples(
    files: Sequence[Path],
    kind: str,
    *,
    columns: Mapping[str, str] | None = None,
    format: str = "auto",
    answers_required: bool = True,
    skipped: list[Fault] | None = None,
) -> Iterator[Example]:
    """The examples of files of a kind, "qa" or "text"."""
    if columns or format != "auto":
        raise UserError("--columns and --format are not offered for this kind of file.")
    if kind == "text":
        for example in read_files(files, "test", skipped):
            yield example | {"label": LABELS[example["label"]]}
        return
    for file in files:
        yield from read_squad_json(file, "error" if skipped is None else "skip").examples
