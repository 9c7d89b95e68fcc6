"""The folder that a run works in: one process holds it, and an interrupted run that resumes recognises it."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import UserError
from ..files import write_json

STATE = "run.json"


class own:
    """The output folder, locked against a second process; gives the state that an unfinished run of the same content left in it.

    Without `resume` the content of the folder is removed if a run wrote it; folders with other content are refused.
    leave: called with the folder before an unfinished run is removed.
    """

    def __init__(
        self, folder: Path, run_key: str, resume: bool, leave: Callable[[Path], None] = lambda folder: None
    ):
        self.folder, self.run_key, self.resume, self.leave = folder, run_key, resume, leave
        self.lock = FileLock(f"{folder}.lock")

    def __enter__(self) -> dict[str, Any]:
        if local_rank() > 0:
            return {}
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout:
            if not Path(self.lock.lock_file).exists():
                raise unwritable(self.folder, OSError(0, "no file can be created there")) from None
            raise UserError(
                f"{self.folder} is in use by another training; wait, or choose another --output_dir."
            ) from None
        except OSError as error:
            raise unwritable(self.folder, error) from None
        try:
            return self._state()
        except OSError as error:
            self.__exit__()
            raise unwritable(self.folder, error) from None
        except BaseException:
            self.__exit__()
            raise

    def _state(self) -> dict[str, Any]:
        state = read_state(self.folder)
        if state.get("removing"):
            # A process was killed while it removed the folder.
            remove(self.folder, state)
            if self.resume and state.get("finished") and state["run_fingerprint"] == self.run_key:
                return state
            state = {}
        if state:
            if self.resume and state["run_fingerprint"] != self.run_key:
                raise UserError(
                    f"--resume: {self.folder} holds a run with other settings, data or code; "
                    "repeat its command line, or start from the beginning without --resume."
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(
                f"--output_dir {self.folder} holds files that no training wrote; choose an empty folder."
            )
        if not self.resume and state:
            self.leave(self.folder)
            remove(self.folder, state)
            state = {}
        self.folder.mkdir(exist_ok=True)
        return state

    def __exit__(self, *_: object) -> None:
        if local_rank() > 0:
            return
        with contextlib.suppress(OSError):
            # It is empty if nothing was done.
            self.folder.rmdir()
        # Unlink the file while the lock is held: a process that opened it before then finds it unlinked, and does not mistake
        # its lock for the folder's.
        if self.lock.is_locked:
            Path(self.lock.lock_file).unlink(missing_ok=True)
        self.lock.release()


def read_state(folder: Path) -> dict[str, Any]:
    """The content of run.json in a run's folder: `run_fingerprint`, and `run_id` once there is one; {} without the file."""
    try:
        return dict(json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, TypeError):
        raise UserError(
            f"{folder / STATE} is damaged: remove {folder}, or choose another --output_dir."
        ) from None


def remove(folder: Path, state: dict[str, Any]) -> None:
    """Remove a run's folder. run.json goes last, so that a process that is killed meanwhile leaves a recognisable folder."""
    write_json(folder / STATE, state | {"removing": True})
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != STATE:
            entry.unlink()
    (folder / STATE).unlink()
    folder.rmdir()


def unwritable(folder: Path, error: OSError) -> UserError:
    """The error that reports a full, read-only or forbidden disk."""
    where = error.filename or folder
    return UserError(
        f"{where} cannot be written: {error.strerror or error}. Free some space or correct its permissions, or choose another "
        "--output_dir."
    )


def local_rank() -> int:
    """This process's rank among those that one launcher started; 0 without a launcher."""
    return int(os.environ.get("RANK", 0))
