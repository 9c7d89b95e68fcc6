"""A user's files: read as text with plain errors, and identified by their checksums."""

import codecs
import contextlib
import gzip
import hashlib
import io
import json
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypedDict, TypeVar

from .atomic import atomic_write
from .errors import UserError

Result = TypeVar("Result")

_known: dict[tuple[object, ...], Any] = {}
_SETTLED = 2.0
"""Seconds after which a further write changes a file's times, even if the file system's clock is coarse."""

FORMATS = {
    b"PK\x03\x04": "a zip archive; unpack it and name the file in it",
    b"PAR1": "Parquet; prepare_data.py reads it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"BZh": "compressed with bzip2; unpack it (bunzip2)",
    b"\xfd7zXZ": "compressed with xz; unpack it (unxz)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it (unzstd)",
    b"ARROW1": "an Arrow file; prepare_data.py reads it, and folders that save_to_disk wrote (--source saved)",
    b"%PDF": "a PDF; save its text",
    b"\x89PNG": "a picture",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Office file; save it as CSV or text in UTF-8",
    b"\x80\x04\x95": "a Python pickle, which is not read; save the data as JSON",
    b"{\\rtf": "RTF; save it as text in UTF-8",
    b"\x89HDF": "HDF5; save the data as JSON or CSV",
}
"""First bytes of a file → what it is, and what to do instead."""


def read_text(path: Path) -> str:
    """The content of a file in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark; each of them may be compressed by gzip.

    UserError if the file has another format, which it names with the remedy, or cannot be read or is empty.
    """
    _refuse_folder(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
    return _decoded(raw, path)


def read_yaml(path: Path) -> Any:
    """The content of a file in YAML or JSON. UserError as of `read_text`, and if it is neither."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The content of a text in YAML, or in JSON, which is YAML too; UserError if it is neither. where: as messages call it."""
    import yaml

    try:
        return yaml.safe_load(text)
    # ValueError: dates that do not exist, and numbers of too many digits.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is neither YAML nor JSON: {' '.join(str(error).split())}") from None


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise UserError(
            f"{path} is a folder; name the file in it (or use --source saved for a saved dataset)."
        )


def _decoded(raw: bytes, path: Path | str) -> str:
    if raw.startswith(_GZIP):
        try:
            raw = gzip.decompress(raw)
        except _DAMAGED_GZIP as error:
            raise UserError(f"{path} is damaged gzip ({error}); download it again.") from None
    encoding = _encoding(raw[:_BEGIN], path)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(path, encoding, error.start, error.object[error.start]) from None
    if not text.strip():
        raise UserError(f"{path} is empty; save or download it again.")
    return text


@contextlib.contextmanager
def text_stream(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """The text of a file for reading in pieces, in the encodings and with the errors of `read_text`; it may be empty.

    newline: where lines end, as `open` takes it.
    """
    _refuse_folder(path)
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == _GZIP
            file.seek(0)
            binary: Any = gzip.GzipFile(fileobj=file) if compressed else file
            encoding = _encoding(binary.read(_BEGIN), path)
            binary.seek(0)
            yield io.TextIOWrapper(binary, encoding, newline=newline)
    except UnicodeDecodeError as error:
        # It counts from the beginning of a piece of the file.
        at, byte = _first_undecodable(path, encoding) or (error.start, error.object[error.start])
        raise _undecodable(path, encoding, at, byte) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged gzip ({error}); download it again.") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}.") from None


def _first_undecodable(path: Path, encoding: str) -> tuple[int, int] | None:
    """(place, value) of the first byte of a text file that cannot be decoded."""
    with open(path, "rb") as file:
        binary: Any = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == _GZIP else file
        decoder, read = codecs.getincrementaldecoder(encoding)(), 0
        while True:
            piece = binary.read(1 << 20)
            waiting = len(decoder.getstate()[0])
            try:
                decoder.decode(piece, not piece)
            except UnicodeDecodeError as error:
                return read - waiting + error.start, error.object[error.start]
            if not piece:
                return None
            read += len(piece)


def _undecodable(path: Path | str, encoding: str, at: int, byte: int) -> UserError:
    if encoding in _MARKED:
        return UserError(
            f"{path} is {_MARKED[encoding]} that breaks off or is damaged; save it again as UTF-8."
        )
    return UserError(
        f"{path} is not UTF-8: byte {at} is {byte:#04x}. Save it as UTF-8 (for example: iconv -f latin1 -t utf-8)."
    )


def _encoding(raw: bytes, path: Path | str) -> str:
    """The encoding of a file by its first bytes; UserError if they are not those of text."""
    for start, what in FORMATS.items():
        if raw.startswith(start):
            raise UserError(f"{path} is not text: it is {what}.")
    if raw[257:262] == b"ustar":
        raise UserError(f"{path} is a tar archive; unpack it and name the file in it.")
    if raw.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not the file itself: run git lfs pull.")
    if _WEB_PAGE.match(raw):
        raise UserError(
            f"{path} is a web page: the download saved a page about the file; download the file itself."
        )
    if raw.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in (begin := raw[:1000]):
        like = "UTF-16 without a byte-order mark" if 3 * begin.count(b"\0") > len(begin) else "not text"
        raise UserError(f"{path} is {like}; save it as UTF-8 text.")
    return "utf-8-sig"


def text_or_file(argument: str, flag: str) -> str:
    """The text that a flag gives, or the content of the file if it gives a path; "-" is the standard input.

    UserError if it looks like a path but names no file, because a model would then answer from the name.
    """
    if argument.strip() == "-":
        return _decoded(sys.stdin.buffer.read(), "The standard input")
    if "\n" in argument.strip():
        return argument
    exists, reason = False, "no such file"
    try:
        path = Path(argument.rstrip("\r\n")).expanduser()
        exists = path.exists()
    except RuntimeError:
        reason = "no such user"
    except OSError as error:
        # Too long for a path, as most texts are, or below a folder without permission to read.
        reason = error.strerror or str(error)
    if exists and argument.strip():
        return read_text(path)
    if _PATH.fullmatch(argument.strip()):
        raise UserError(
            f"{flag} {argument.strip()}: {reason}. To give a text that looks like a path, write it into a file."
        )
    return argument


_PATH = re.compile(
    r"""(~\S*|\.{0,2})[/\\]\S.*          # begins like one: /etc/notes, ./my notes, ~/notes
    | \S*[/\\]\S*                       # one word with slashes
    | [a-z]:\\.*                         # a drive of Windows
    | \S+\.(?=\d*[a-z])[a-z0-9]{2,8}     # one word with a suffix
    | [^\n]*\S\.(txt|text|md|rst|html?|jsonl?|csv|tsv|xml|tex|log|ya?ml|rtf|odt|docx?|pdf|gz)""",
    re.I | re.X,
)
_GZIP = b"\x1f\x8b"
_DAMAGED_GZIP = (OSError, EOFError, zlib.error)
_BEGIN = 4096
"""First bytes of a file that tell its format."""
_MARKED = {"utf-16": "UTF-16", "utf-32": "UTF-32"}
"""Encodings that a byte-order mark tells."""
_WEB_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype html|<html)", re.I | re.S
)


class FileRecord(TypedDict):
    """Which file was read, by content."""

    name: str
    sha256: str
    bytes: int


def file_record(file: Path) -> FileRecord:
    """The record of a file that was read."""
    return {"name": Path(file).name, "sha256": sha256(file), "bytes": Path(file).stat().st_size}


def sha256(file: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def once(call: Callable[[Path], Result], file: Path) -> Result:
    """`call(file)`, once per process as long as the file does not change: reading a large checkpoint takes seconds.

    The time of the last change cannot be set back, unlike that of the last write. The result for a file that was just written
    is not remembered, because the file may change again within one tick of the clock.
    """
    started, found = time.time(), file.stat()
    key = (
        call,
        str(file.resolve()),
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
    if key in _known:
        known: Result = _known[key]
        return known
    result = call(file)
    if started - found.st_ctime > _SETTLED:
        _known[key] = result
    return result


def as_json(content: object) -> str:
    """JSON on one line, with its end."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_json(file: Path, content: object) -> None:
    """Write JSON on one line; the file is whole, or as it was before."""
    write_bytes(file, as_json(content).encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file, which is whole then, or as it was before."""
    with atomic_write(file, durable=True) as part:
        part.write_bytes(content)
