"""A user's files: read as text with plain errors, and told apart by their checksums."""

import hashlib
from pathlib import Path

from .errors import UserError


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
