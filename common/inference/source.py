"""What a model is asked: the examples of files in any format, or of JSON lines on the standard input, as a stream."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..data.examples import read_examples
from ..data.record import Example
from ..errors import UserError

STDIN = "-"


@dataclass(frozen=True)
class Source:
    """Examples that can be read, once or several times."""

    name: str
    """As messages call it."""
    examples: Callable[[], Iterator[Example]]
    """A new reading: `id` and the columns of a request, and what else the rows hold."""
    again: bool = True
    """Whether it can be read several times."""

    def count(self) -> int | None:
        """How many examples there are; None where they can be read just once. Reads all: every fault is found before a model
        is asked. UserError also names the first id that stands twice, as predictions are found by their ids."""
        if not self.again:
            return None
        # Digests of 8 bytes: the ids of a million rows would take as much memory as many a model.
        seen: set[int] = set()
        count = 0
        for count, example in enumerate(self.examples(), 1):  # noqa: B007
            key = hash(str(example["id"]))
            if key in seen:
                raise UserError(
                    f"{self.name}: the id {example['id']!r} stands twice; ids must be unique, since predictions are found by them."
                )
            seen.add(key)
        if not count:
            raise UserError(f"{self.name} holds no examples.")
        return count


def source_of(
    files: Sequence[str],
    asked: Sequence[str],
    *,
    columns: Mapping[str, str] | None = None,
    format: str = "auto",
    answers_required: bool = False,
) -> Source:
    """The source that a command line names. asked: the columns of a model's request. "-": JSON lines on the standard input."""
    if STDIN in files:
        if len(files) > 1:
            raise UserError("--file -: the standard input is read alone, without other files.")
        return Source("The standard input", lambda: from_lines(sys.stdin, asked), again=False)
    kind = "qa" if "question" in asked else "text"
    paths = [Path(file).expanduser() for file in files]

    def examples() -> Iterator[Example]:
        return read_examples(paths, kind, columns=columns, format=format, answers_required=answers_required)

    return Source(", ".join(files), examples)


def from_lines(lines: TextIO, asked: Sequence[str]) -> Iterator[Example]:
    """The examples of JSON lines: objects with the columns of a request and perhaps an `id`, else the line's number is the id.

    UserError names the line that is not such an object.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"The standard input, line {number}"
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place} is not JSON: {error}.") from None
        if not isinstance(row, dict):
            raise UserError(f'{place} must be an object such as {{"{asked[0]}": "..."}}.')
        for name in asked:
            if not isinstance(row.get(name), str) or not row[name].strip():
                raise UserError(f"{place}: {name!r} must be a text that is not empty.")
        given = row.get("id", number)
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise UserError(f"{place}: 'id' must be a text or a whole number.")
        yield {"id": str(given), **{name: row[name] for name in asked}}
