"""Files of rows: CSV, TSV, JSON lines, a JSON list, Parquet and Arrow, read as rows with their places.

Text may be compressed by gzip. All of them but a JSON list are read in pieces: memory does not grow with the file.
"""

import csv
import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import UserError, first_line
from ..files import read_text, text_stream
from .columns import USUAL

Row = dict[str, Any]

Rows = Iterator[tuple[str, Row | str]]
"""Place of each row ("line 3" of text, counted from 1; "row 3" of other files, counted from 0), and the row or what is wrong
with it, as the end of a sentence that begins with the place."""

_DELIMITERS = ",;\t|"
_BATCH = 1000
"""Rows of Parquet that are held at a time."""
_PARQUET, _ARROW = (".parquet", ".pq"), (".arrow", ".feather", ".ipc")


class Table(NamedTuple):
    """A file of rows that is open for one reading."""

    columns: tuple[str, ...] | None
    """Names of the columns; None if each row names its own, as in JSON."""
    rows: Rows


Files = Path | str | Iterable[Path | str]
"""A file, or several; each may be a glob."""


def expand(patterns: Files) -> list[Path]:
    """The files of names and globs (`data/**/*.parquet`), those of each glob sorted, each file once.

    UserError if a glob matches nothing; a name without a file is reported when the file is read.
    """
    found: dict[Path, None] = {}
    for pattern in map(str, [patterns] if isinstance(patterns, str | Path) else patterns):
        if Path(pattern).exists() or not glob.has_magic(pattern):
            found[Path(pattern)] = None
            continue
        files = [path for path in sorted(map(Path, glob.glob(pattern, recursive=True))) if path.is_file()]
        if not files:
            raise UserError(f"{pattern}: no file matches it.")
        found |= dict.fromkeys(files)
    return list(found)


def read(path: str | Path, *, known: Iterable[str] = (), positions: Sequence[str] | None = None) -> Table:
    """The rows of a file in any of the formats; UserError if it cannot be read.

    The name's end decides about Parquet and Arrow, the content about the rest. The delimiter of a CSV is the one that splits the
    header into the most names that are usual or `known`. positions: names for the values of rows that are JSON lists; without
    them such a row has a fault.
    """
    path = Path(path)
    if suffix(path) in _PARQUET or _magic(path) == b"PAR1":
        return _parquet(path)
    if suffix(path) in _ARROW or _magic(path) == b"ARRO":
        return _arrow(path)
    return _text(path, known, positions)


def is_text(path: Path) -> bool:
    """Whether a file is none of Parquet and Arrow."""
    return suffix(path) not in _PARQUET + _ARROW and _magic(path) not in (b"PAR1", b"ARRO")


def first_character(path: Path) -> str:
    """The first character of a text file that is not white space; UserError if there is none."""
    with text_stream(path) as stream:
        while piece := stream.read(4096):
            if begin := piece.lstrip():
                return begin[0]
    raise UserError(f"{path} is empty; save or download it again.")


def opening_line(path: Path, most: int | None = None) -> str:
    """The first line of a text file that is not empty, at most its first `most` characters."""
    with text_stream(path, newline="\n") as stream:
        while line := stream.readline(-1 if most is None else most):
            if line.strip():
                return line
    return ""


def suffix(path: Path) -> str:
    """The end of a file's name in lower case, without that of compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return suffixes[-1] if suffixes else ""


def _magic(path: Path) -> bytes:
    """The first four bytes; none if the file cannot be read, which its reader reports."""
    try:
        with open(path, "rb") as file:
            return file.read(4)
    except OSError:
        return b""


def _text(path: Path, known: Iterable[str], positions: Sequence[str] | None) -> Table:
    begin = first_character(path)
    if begin == "[":
        return Table(None, _json_list(path, positions))
    if begin == "{" or suffix(path) in (".json", ".jsonl", ".ndjson"):
        return Table(None, _json_lines(path, positions))
    delimiter = _delimiter(path, {name.lower() for name in known})
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
    if delimiter == "\t":
        try:
            for _ in _records(path, delimiter, quoting):
                pass
        except csv.Error:
            # Most files with tabs quote nothing: quotation marks in them belong to the text.
            quoting = csv.QUOTE_NONE
    records = _csv(path, delimiter, quoting)
    _, header = next(records, ("", []))
    return Table(tuple(header), _csv_rows(header, records, delimiter))


def _csv(path: Path, delimiter: str, quoting: Literal[0, 3]) -> Iterator[tuple[str, list[str]]]:
    try:
        yield from _records(path, delimiter, quoting)
    except csv.Error as error:
        raise UserError(f"{path}: {error}.") from None


def _records(path: Path, delimiter: str, quoting: Literal[0, 3]) -> Iterator[tuple[str, list[str]]]:
    """(line at which it ends, fields) of each record that is not empty; csv.Error names the line."""
    # Texts may be longer than the 131,072 characters that a field may have by default.
    csv.field_size_limit(10**9)
    with text_stream(path, newline="") as stream:
        reader = csv.reader(stream, strict=True, delimiter=delimiter, quoting=quoting)
        try:
            for record in reader:
                if record:
                    yield f"line {reader.line_num}", record
        except csv.Error as error:
            raise csv.Error(f"line {reader.line_num}: {error}") from None


def _csv_rows(header: list[str], records: Iterator[tuple[str, list[str]]], delimiter: str) -> Rows:
    first: dict[str, int] = {}
    for n, name in enumerate(header):
        first.setdefault(name, n)
    for place, record in records:
        if len(record) > len(header):
            yield place, f" has more fields than the header; quote texts that hold {delimiter!r}."
            continue
        yield place, {name: record[n] if n < len(record) else None for name, n in first.items()}


def _delimiter(path: Path, known: set[str]) -> str:
    """The delimiter that splits the header into the most known names: names contain none, unlike the texts below them."""
    with text_stream(path, newline="") as stream:
        header = next(line for line in stream if line.strip()).rstrip("\r\n")

    def rank(delimiter: str) -> tuple[int, int]:
        names = {name.strip().strip('"').lower() for name in header.split(delimiter)}
        return sum(bool(names & {*usual}) for usual in USUAL.values()) + len(names & known), len(names)

    return max(_DELIMITERS, key=rank)


def _json_list(path: Path, positions: Sequence[str] | None) -> Rows:
    """The objects of a list, or of lines that are lists."""
    content = read_text(path)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            del content
            yield from _json_lines(path, positions)
            return
        raise UserError(f"{path} is not JSON: {error}.") from None
    for n, value in enumerate(values):
        yield f"row {n}", _object(value, positions)


def _json_lines(path: Path, positions: Sequence[str] | None) -> Rows:
    # Lines end at line feeds alone: JSON allows U+2028 and U+0085 within a text.
    with text_stream(path, newline="\n") as stream:
        yield from parse_lines(stream, positions)


def parse_lines(lines: Iterable[str], positions: Sequence[str] | None = None) -> Rows:
    """Rows of lines of JSON, one object each; empty lines are left out."""
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield f"line {n}", f" is not JSON: {error}."
            continue
        yield f"line {n}", _object(value, positions)


def _object(value: Any, positions: Sequence[str] | None) -> Row | str:
    if isinstance(value, list) and positions and len(value) <= len(positions):
        return dict(zip(positions, value, strict=False))
    return value if isinstance(value, dict) else f" must be an object, not {type(value).__name__}."


def _parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    def batches() -> Iterator[Any]:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                yield from file.iter_batches(batch_size=_BATCH, row_groups=[group])

    try:
        with open(path, "rb") as file, pyarrow.parquet.ParquetFile(file) as parquet:
            columns = parquet.schema_arrow.names
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, "parquet", error) from None
    return Table(tuple(columns), _batch_rows(path, "parquet", batches()))


def _arrow(path: Path) -> Table:
    """A file of Arrow's IPC format, or a stream of it, which `datasets` writes; memory-mapped."""
    import pyarrow

    def opened(source: Any) -> Any:
        return pyarrow.ipc.open_file(source) if _magic(path) == b"ARRO" else pyarrow.ipc.open_stream(source)

    def batches() -> Iterator[Any]:
        with pyarrow.memory_map(str(path)) as source:
            reader = opened(source)
            if hasattr(reader, "num_record_batches"):
                yield from (reader.get_batch(n) for n in range(reader.num_record_batches))
            else:
                yield from reader

    try:
        with open(path, "rb"), pyarrow.memory_map(str(path)) as source:
            columns = opened(source).schema.names
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, "Arrow", error) from None
    return Table(tuple(columns), _batch_rows(path, "Arrow", batches()))


def _batch_rows(path: Path, what: str, batches: Iterator[Any]) -> Rows:
    import pyarrow

    n = 0
    try:
        for batch in batches:
            # A batch of an Arrow file may be the whole file.
            for part in (batch.slice(at, _BATCH) for at in range(0, batch.num_rows, _BATCH)):
                for row in _as_rows(part):
                    yield f"row {n}", row
                    n += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, what, error) from None


def _as_rows(batch: Any) -> Iterable[Row | str]:
    try:
        rows: list[Row | str] = batch.to_pylist()
        return rows
    except UnicodeDecodeError:
        return chain.from_iterable(map(_as_row, (batch.slice(n, 1) for n in range(batch.num_rows))))


def _as_row(batch: Any) -> list[Row | str]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [" is not UTF-8; write the file again from UTF-8 text."]


def _unreadable(path: Path, what: str, error: BaseException) -> UserError:
    reason = getattr(error, "strerror", None) or first_line(error)
    return UserError(f"{path} cannot be read as {what}: {reason}")
