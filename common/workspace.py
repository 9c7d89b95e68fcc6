"""The folder that a run works in: held by one process, recognised when an interrupted run goes on."""

import json
import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import UserError

STATE = "run.json"


class own:
    """The output folder, held against a second process; gives what an unfinished run of the same content left there.

    Without `resume` what lies there is removed, if a run of ours left it; a stranger's folder is refused.
    """

    def __init__(self, folder: Path, run_key: str, resume: bool):
        self.folder, self.run_key, self.resume = folder, run_key, resume
        self.lock = FileLock(f"{folder}.lock")

    def __enter__(self) -> dict:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if local_rank() > 0:
            return {}
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.folder} is in use by another training; wait, or choose another --output_dir."
            ) from None
        try:
            return self._state()
        except BaseException:
            self.__exit__()
            raise

    def _state(self) -> dict:
        state = {}
        if (self.folder / STATE).is_file():
            state = json.loads((self.folder / STATE).read_text())
            if self.resume and state["run_fingerprint"] != self.run_key:
                raise UserError(
                    f"--resume: {self.folder} holds a run with other settings, data or code; "
                    "repeat its command line, or start anew without --resume."
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(
                f"--output_dir {self.folder} holds files that no training wrote; choose an empty folder."
            )
        if self.resume and not state:
            print(f"--resume: {self.folder} holds nothing to go on from; starting at the beginning.")
        if not self.resume and state:
            shutil.rmtree(self.folder)
            state = {}
        self.folder.mkdir(exist_ok=True)
        return state

    def __exit__(self, *_):
        self.lock.release()
        if local_rank() == 0:
            Path(self.lock.lock_file).unlink(missing_ok=True)


def local_rank() -> int:
    """This process's rank among those that one launcher started; 0 without a launcher."""
    return int(os.environ.get("RANK", 0))


def write_json(file: Path, content) -> None:
    """Write all of it or nothing."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    part.replace(file)
