"""Corrected answers in a file of SQuAD v2.0, which `prepare_data.py` reads; each question has a `correction` of its own, which
says which model had answered what, and when.

A context is an article of its own, so that its questions stay on one side of every split. A question on a context stands
once: a later correction takes the earlier one's place, and is counted.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import ENOENT
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import UserError
from ..files import as_json, read_text, write_bytes

MADE_BY = "corrections"
"""The `source` of such a file: no other file is written to."""

MAX_BYTES = 20_000_000
"""Of the file: each correction writes all of it."""

PATIENCE = 10.0
"""Seconds that a correction waits for others that are being written."""


class Full(Exception):
    """The file takes no more."""


class Occupied(Exception):
    """Other corrections took too long."""


@dataclass(frozen=True)
class Correction:
    """The right answer to a question."""

    question: str
    context: str
    text: str
    """The answer as it stands in the context; empty: the context has none."""
    start: int
    """Its place in the context, in code points; -1 without one."""
    model: str
    """URI of the version that had answered."""
    answered: Mapping[str, Any]
    """What it had answered: `text`, `start`, and `time` (UTC, ISO 8601)."""
    language: str | None = None
    """Of the model's data, whose rules the answer is scored by; None: SQuAD's."""


class Corrections:
    """The file; several processes may write to one. UserError if it is none of ours, or its folder cannot be written to."""

    def __init__(self, file: Path):
        self.file = file
        try:
            with self._alone():
                self._read()
        except OSError as error:
            raise UserError(f"--corrections {file} cannot be written ({error.strerror}).") from None
        except Occupied:
            raise UserError(
                f"--corrections {file} is being written by another process that does not end."
            ) from None

    def add(self, correction: Correction) -> int:
        """Keep a correction; how often this question was corrected with it.

        It is on the disk when this returns. Raises Full, Occupied, OSError, and UserError if the file was changed to another
        one meanwhile.
        """
        with self._alone():
            content = self._read()
            article = _article(content["data"], correction)
            (paragraph,) = article["paragraphs"]
            id_ = digest(correction.context, correction.question)[:16]
            # By its text: files of earlier versions have other ids.
            same = [qa for qa in paragraph["qas"] if qa["question"] == correction.question]
            times = 1 + sum(qa["correction"]["times"] for qa in same)
            made = _as_squad(correction, id_, times)
            paragraph["qas"] = [qa for qa in paragraph["qas"] if qa not in same] + [made]
            written = as_json(content).encode()
            if len(written) > MAX_BYTES:
                raise Full
            write_bytes(self.file, written)
            return times

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time, of all threads and processes. The lock is a file of its own, because the other is replaced."""
        if not self.file.parent.is_dir():
            # The lock would make it.
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT))
        try:
            with FileLock(self.file.with_name(f".{self.file.name}.lock"), timeout=PATIENCE):
                yield
        except Timeout:
            raise Occupied from None

    def _read(self) -> dict[str, Any]:
        if not self.file.exists():
            return {"version": "v2.0", "source": MADE_BY, "data": []}
        try:
            content = json.loads(read_text(self.file))
            for article in content["data"]:
                (paragraph,) = article["paragraphs"]
                for qa in paragraph["qas"]:
                    paragraph["context"], qa["id"], qa["correction"]["times"] + 0
            if content["source"] == MADE_BY:
                found: dict[str, Any] = content
                return found
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise UserError(
            f"--corrections {self.file} holds something else, which would be changed: name a file that does not exist yet."
        )


def _article(articles: list[dict[str, Any]], correction: Correction) -> dict[str, Any]:
    """The article of a correction's context, added if there is none."""
    for article in articles:
        if article["paragraphs"][0]["context"] == correction.context:
            return article
    title = f"corrected {digest(correction.context)[:16]}"
    articles.append({"title": title, "paragraphs": [{"context": correction.context, "qas": []}]})
    return articles[-1]


def _as_squad(correction: Correction, id_: str, times: int) -> dict[str, Any]:
    there = correction.start >= 0
    return {
        "id": id_,
        "question": correction.question,
        "is_impossible": not there,
        "answers": [{"text": correction.text, "answer_start": correction.start}] if there else [],
        **({"language": correction.language} if correction.language else {}),
        "correction": {
            "model": correction.model,
            "answered": dict(correction.answered),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "times": times,
        },
    }


def digest(*texts: str) -> str:
    """SHA-256 of texts in their order, in hexadecimal digits; no others have the same, wherever one ends and the next begins."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
