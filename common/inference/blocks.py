"""A stream of examples in blocks, and the journal that keeps each block's answers: a run that was killed goes on with it."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from ..data.record import Example
from ..errors import UserError
from ..files import write_json

ROWS = 256
"""Examples of a block. What models of earlier versions take in one request."""

CHARACTERS = 400_000
"""Characters of a block, unless one example alone has more."""

_FILE = re.compile(r"(\d{8})-(\d+)\.json")

Answers = list[dict[str, Any]]
"""What is kept of a block: a JSON object for each example, in order."""


def blocks(
    examples: Iterable[Example], asked: Sequence[str], rows: int = ROWS, characters: int = CHARACTERS
) -> Iterator[list[Example]]:
    """Consecutive examples in lists of at most `rows`, whose texts have at most `characters` together, but of one at least.

    asked: the columns whose texts count. Which examples share a block follows from the stream alone.
    """
    block: list[Example] = []
    size = 0
    for example in examples:
        length = sum(len(example[name]) for name in asked)
        if block and (len(block) == rows or size + length > characters):
            yield block
            block, size = [], 0
        block.append(example)
        size += length
    if block:
        yield block


def digest(block: Sequence[Example], asked: Sequence[str]) -> str:
    """sha256 of what a block asks, with its ids."""
    content = [[example["id"], *(example[name] for name in asked)] for example in block]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Journal:
    """The answers of the finished blocks, each in a file of its own, in a folder that one process at a time holds.

    identity: what the answers depend on beside the examples: the model by its content, and the parameters. A block's file
    names what the block asked: neither another model's answers nor those to other questions are ever taken over.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], resume: bool):
        self.folder, self.identity = folder, dict(identity)
        self._lock = FileLock(folder.with_name(f"{folder.name}.lock"))
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise UserError(f"{folder}: another process is writing these predictions.") from None
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror}.") from None
        try:
            self._open(resume)
        except BaseException:
            self._release()
            raise

    def _open(self, resume: bool) -> None:
        file = self.folder / "journal.json"
        if self.folder.exists() and not resume:
            shutil.rmtree(self.folder)
        if file.is_file():
            try:
                held = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                held = {}
            for name in {**self.identity, **held}:
                if held.get(name) != self.identity.get(name):
                    raise UserError(
                        f"--resume: what {self.folder} holds was predicted with another {name} ({held.get(name)}, not "
                        f"{self.identity.get(name)}): leave --resume out to begin again."
                    )
        self.folder.mkdir(exist_ok=True)
        write_json(file, self.identity)
        self._finished = {
            int(match[1]): int(match[2])
            for each in self.folder.iterdir()
            if (match := _FILE.fullmatch(each.name))
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    def _release(self) -> None:
        self._lock.release()

    @property
    def examples(self) -> int:
        """How many examples the finished blocks have."""
        return sum(self._finished.values())

    def has(self, number: int, asked: str) -> bool:
        """Whether a block is finished. asked: its digest. UserError if other examples were in its place."""
        if number not in self._finished:
            return False
        if self._read(number)["asked"] != asked:
            raise UserError(
                f"--resume: block {number} of {self.folder} was predicted for other examples than the data holds there: was the "
                "file changed? Leave --resume out to begin again."
            )
        return True

    def check_end(self, count: int) -> None:
        """UserError where blocks are finished that the examples do not have. count: how many blocks they make."""
        if self._finished and max(self._finished) >= count:
            raise UserError(
                f"--resume: {self.folder} holds more blocks than the data makes: was the file cut? Leave --resume out to begin again."
            )

    def put(self, number: int, asked: str, answers: Answers) -> None:
        """Keep a block's answers: on the disk when this returns, or not there at all after a kill."""
        write_json(self._file(number, len(answers)), {"asked": asked, "answers": answers})
        self._finished[number] = len(answers)

    def answers(self) -> Iterator[dict[str, Any]]:
        """All answers, in the order of the examples."""
        for number in sorted(self._finished):
            yield from self._read(number)["answers"]

    def remove(self) -> None:
        """Remove the folder, once its answers are where they belong."""
        shutil.rmtree(self.folder)
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def _file(self, number: int, count: int) -> Path:
        return self.folder / f"{number:08d}-{count}.json"

    def _read(self, number: int) -> dict[str, Any]:
        file = self._file(number, self._finished[number])
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if len(content["answers"]) != self._finished[number]:
                raise ValueError(file.name)
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{file} is damaged: remove it and go on with --resume.") from None
        return content
