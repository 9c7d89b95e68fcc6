"""Folders for copies of models, which go with the process that uses them, however that ends."""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from .atomic import atomic_write

PREFIX = "stored-model-"
HELD = "held.lock"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder of one's own, gone at the end."""
    folder, release = own_folder()
    try:
        yield folder
    finally:
        release()


def own_folder() -> tuple[Path, Callable[[], None]]:
    """(an empty folder, what removes it). What processes of this user left that were killed is removed first.

    A folder belongs to a process as long as this one holds the lock of the file HELD beside the folder, in one made for both.
    """
    _clear()
    place = Path(tempfile.mkdtemp(prefix=PREFIX))
    # It gets its name when it is held: no other process finds it in between.
    with atomic_write(place / HELD) as part:
        held = part.open("w")
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    folder = place / "files"
    folder.mkdir()

    def release() -> None:
        shutil.rmtree(place, ignore_errors=True)
        held.close()
        atexit.unregister(release)

    # Where a thread is loading the model when a signal ends the process.
    atexit.register(release)
    return folder, release


def _clear() -> None:
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Another user's, or removed by another process meanwhile.
        with contextlib.suppress(OSError):
            if place.is_symlink() or place.stat().st_uid != os.getuid():
                continue
            with (place / HELD).open() as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
