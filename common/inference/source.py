"""What a model is asked: the examples of files in any format, or of JSON lines on the standard input, as a stream."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.columns import Columns
from ..data.examples import STDIN, read_examples
from ..data.record import Example
from ..errors import UserError


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
        # Hashes of 8 bytes: the ids of a million rows would take as much memory as many a model.
        seen: set[int] = set()
        count = 0
        for count, example in enumerate(self.examples(), 1):  # noqa: B007
            check_new(example, seen, self.name)
        if not count:
            raise UserError(f"{self.name} holds no examples.")
        return count


def check_new(example: Example, seen: set[int], name: str) -> None:
    """Note the hash of an example's id; UserError where it was there already. name: of the source."""
    if (key := hash(example["id"])) in seen:
        raise UserError(
            f"{name}: the id {example['id']!r} stands twice; ids must be unique, since predictions are found by them."
        )
    seen.add(key)


def source_of(
    files: Sequence[str],
    asked: Sequence[str],
    *,
    columns: Columns | None = None,
    format: str = "auto",
    answers_required: bool = False,
) -> Source:
    """The source that a command line names. asked: the columns of a model's request. "-": JSON lines on the standard input."""
    stdin = STDIN in files
    if stdin and len(files) > 1:
        raise UserError("--file -: the standard input is read alone, without other files.")
    kind = "qa" if "question" in asked else "text"
    paths = [file if file == STDIN else str(Path(file).expanduser()) for file in files]

    def examples() -> Iterator[Example]:
        found = read_examples(paths, kind, columns=columns, format=format, answers_required=answers_required)
        for example in found:
            if missing := [name for name in asked if name not in example]:
                raise UserError(
                    f"{example['file']}: {example['place']} has no {missing[0]!r}, which the model is asked with."
                )
            yield example

    return Source("The standard input" if stdin else ", ".join(files), examples, again=not stdin)
