"""Files and folders that are whole or not there: written next to their place under another name, then renamed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def beside(target: Path) -> Path:
    """Where `atomic_write` writes what becomes `target`: `.NAME.part` in the same folder."""
    return target.with_name(f".{target.name}.part")


@contextlib.contextmanager
def atomic_write(target: Path, *, durable: bool = False, replace_folder: bool = False) -> Iterator[Path]:
    """A path next to `target`, to write a file or a folder to; it becomes `target` when the block ends without an error.

    After an error the target is as it was, and what was written is removed. After a kill the target is as it was too; the
    next call for the same target removes what was left. One process at a time may write a target.

    durable: a file's content reaches the disk before the file takes its place, so that a power cut leaves one or the other.
    replace_folder: whether an existing folder that is not empty is replaced; OSError if not. It is moved aside
    first: a kill between the two renames leaves it at `.NAME.old`, from where the next call, or `recover`, puts it back.
    """
    recover(target)
    part = beside(target)
    try:
        yield part
        if durable:
            _sync(part)
        if replace_folder and target.is_dir():
            _replace_folder(part, target)
        else:
            part.replace(target)
    except BaseException:
        # The error that is raised is the one that counts.
        with contextlib.suppress(OSError):
            _remove(part)
        raise


def recover(target: Path) -> None:
    """Clear up after a process that was killed while it wrote `target`, which is then whole or not there."""
    old = _old(target)
    if old.exists() and not target.exists():
        old.rename(target)
    for left in (beside(target), old):
        _remove(left)


def _replace_folder(part: Path, target: Path) -> None:
    old = _old(target)
    target.rename(old)
    try:
        part.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
