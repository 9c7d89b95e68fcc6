"""What a server notes of each row that it answers, so that served questions can be compared with the test data: no text.

SERVING_OBSERVATIONS names a folder. It gets a file a day, or several of PART bytes, that the workers of a server write
together; a line for each row, as `observation` makes it. SERVING_OBSERVATIONS_MB: the most that the folder may hold; the
oldest files go first.
"""

import functools
import hashlib
import json
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UserError
from .aside import Aside
from .observed import Seen, outcome

FOLDER, MOST = "SERVING_OBSERVATIONS", "SERVING_OBSERVATIONS_MB"

DEFAULT_MOST = 1000
"""Megabytes where SERVING_OBSERVATIONS_MB does not say."""

PART = 16 * 10**6
"""Bytes of a file at which the next one is begun."""

FILES = "observations-*.jsonl"

READ = 1000
"""Characters of a text by which its script is told."""

NO_SCRIPT = "none"
"""The script of a text without letters."""

_KEY = os.urandom(16)


def measures(text: str) -> tuple[int, str]:
    """(characters of a text, the script that most of its first letters have, as Unicode names it: LATIN, CJK, ARABIC)."""
    scripts = Counter(map(_script, text[:READ]))
    del scripts[""]
    return len(text), max(scripts, key=lambda name: scripts[name]) if scripts else NO_SCRIPT


@functools.lru_cache(8192)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0] if letter.isalpha() else ""


def result(answer: Mapping[str, Any]) -> dict[str, Any]:
    """`outcome`, and where the answer has them `score`, `label` (the class), and `labels` (how many of any number)."""
    found: dict[str, Any] = {"outcome": outcome(answer)}
    if (score := answer.get("score")) is not None and math.isfinite(score):
        found["score"] = round(float(score), 4)
    if answer.get("label"):
        found["label"] = answer["label"]
    if "labels" in answer:
        found["labels"] = len(answer["labels"])
    return found


def observation(record: Mapping[str, str], answer: Mapping[str, Any]) -> dict[str, Any]:
    """A row and its answer without their texts: `texts`, column → `measures` and a mark, and `result`.

    The mark is the same for the same text, in one process: a digest under a key that nobody else has and that ends with it.
    """
    texts = {
        name: [*measures(text), hashlib.blake2b(text.encode(), key=_KEY, digest_size=5).hexdigest()]
        for name, text in record.items()
    }
    return {"texts": texts, **result(answer)}


class Observations:
    """A folder of them. megabytes: the most that it may hold. UserError if it cannot be written."""

    def __init__(self, folder: Path, megabytes: float = DEFAULT_MOST):
        self._folder, self._most = folder, megabytes * 10**6
        self._day, self._part = "", 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(self._place(datetime.now(UTC)), "ab"):
                pass
        except OSError as error:
            raise UserError(f"{FOLDER} {folder} cannot be written: {error.strerror}.") from None
        # Each piece of work holds the texts of a request.
        self._aside = Aside("Observations", 100)

    def put(self, seen: Seen, model: str = "") -> None:
        """Have the rows of an answered request noted. model: the registered name of what answered, if it has one."""
        # For the technique "all" a row has several answers.
        if len(seen.records) == len(seen.answers) and not any("answers" in row for row in seen.answers):
            now = datetime.now(UTC)
            # Without the request, which may hold a model that is freed meanwhile.
            version, records, answers = seen.version, seen.records, seen.answers
            self._aside.put(lambda: self._write(now, model, version, records, answers))

    def finish(self, seconds: float) -> None:
        """Wait until they are written, but not for longer than that."""
        self._aside.finish(seconds)

    def _write(
        self, now: datetime, model: str, version: str, records: Sequence[Mapping], answers: Sequence[Mapping]
    ) -> None:
        about = {"time": now.isoformat(timespec="seconds"), "version": version} | (
            {"model": model} if model else {}
        )
        lines = [
            json.dumps(about | observation(*each), ensure_ascii=False) + "\n"
            for each in zip(records, answers, strict=True)
        ]
        # In one call, which the system appends whole, whatever other workers append.
        with open(self._place(now), "ab", buffering=0) as file:
            file.write("".join(lines).encode())

    def _place(self, now: datetime) -> Path:
        day = f"{now:%Y-%m-%d}"
        part = self._part if day == self._day else self._last(day)
        while size(file := self._folder / f"observations-{day}-{part:04}.jsonl") >= PART:
            part += 1
        if (day, part) != (self._day, self._part):
            self._day, self._part = day, part
            self._remove_old()
        return file

    def _last(self, day: str) -> int:
        """The newest part of a day that there is: earlier ones may have been removed."""
        names = [file.stem for file in self._folder.glob(f"observations-{day}-*.jsonl")]
        return max((int(name.rpartition("-")[2]) for name in names if name[-4:].isdecimal()), default=0)

    def _remove_old(self) -> None:
        files = sorted(self._folder.glob(FILES))
        total = sum(map(size, files))
        for file in files[:-1]:
            # The file that is written now may grow to a whole part.
            if total + PART <= self._most:
                break
            total -= size(file)
            file.unlink(missing_ok=True)


def size(file: Path) -> int:
    """Bytes of a file; 0 where there is none, which another worker may have removed."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def observations(environment: Mapping[str, str] = os.environ) -> Observations | None:
    """What the environment asks for; None: nothing is noted. UserError names a setting that is wrong."""
    folder, given = environment.get(FOLDER), environment.get(MOST) or str(DEFAULT_MOST)
    if not folder:
        return None
    if not given.isdecimal() or int(given) * 10**6 < 2 * PART:
        raise UserError(
            f"{MOST} is {given!r}; it must be a whole number of megabytes, {2 * PART // 10**6} or more."
        )
    return Observations(Path(folder), int(given))
