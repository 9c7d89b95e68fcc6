"""Folders for copies of models that are removed when the process that uses them ends, or by the next one if it was killed."""

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
    """An empty folder that is removed at the end."""
    folder, release = own_folder()
    try:
        yield folder
    finally:
        release()


def own_folder() -> tuple[Path, Callable[[], None]]:
    """(an empty folder, a function that removes it). Folders that killed processes of this user left are removed first.

    A folder belongs to a process as long as the process holds the lock of the file HELD next to it.
    """
    _clear()
    place = Path(tempfile.mkdtemp(prefix=PREFIX))
    # The file gets its name once it is locked: no other process finds it unlocked.
    with atomic_write(place / HELD) as part:
        held = part.open("w")
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    folder = place / "files"
    folder.mkdir()

    def release() -> None:
        shutil.rmtree(place, ignore_errors=True)
        held.close()
        atexit.unregister(release)

    # For a signal that ends the process while a thread loads the model.
    atexit.register(release)
    return folder, release


def _clear() -> None:
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # It may be another user's, or another process may have removed it meanwhile.
        with contextlib.suppress(OSError):
            if place.is_symlink() or place.stat().st_uid != os.getuid():
                continue
            with (place / HELD).open() as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
