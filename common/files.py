"""A user's files: read as text with plain errors, and told apart by their checksums."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from .errors import UserError

_known: dict[tuple, object] = {}
_SETTLED = 2.0
"""Seconds after which a further write shows in a file's times, however coarse the file system's clock is."""


def read_text(path: Path) -> str:
    """The file's content, which must be UTF-8; UserError if it cannot be read or is empty."""
    if path.is_dir():
        raise UserError(
            f"{path} is a folder; name the file in it (or use --source saved for a saved dataset)."
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
    if not raw.strip():
        raise UserError(f"{path} is empty; download it again.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8: byte {error.start} is {raw[error.start]:#04x}. Save it as UTF-8 "
            f"(for example: iconv -f latin1 -t utf-8)."
        ) from None


def file_record(file: Path) -> dict:
    """`name`, `sha256` and `bytes` of a file that was read."""
    return {"name": Path(file).name, "sha256": sha256(file), "bytes": Path(file).stat().st_size}


def sha256(file: Path) -> str:
    """Of the file's bytes, in hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def once(call: Callable, file: Path):
    """call(file), once per process for a file that has not changed: to read a large checkpoint takes seconds.

    The time of the last change cannot be set back, unlike that of the last write. Of a file that has just been written
    nothing is remembered, for it may change again within one tick of the clock.
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
        return _known[key]
    result = call(file)
    if started - found.st_ctime > _SETTLED:
        _known[key] = result
    return result
