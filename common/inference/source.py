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
    """A new reading: `id`, different in each, the columns of a request, and what else the rows hold."""
    again: bool = True
    """Whether it can be read several times."""

    def count(self) -> int | None:
        """How many examples there are; None where they can be read just once. Reads all: every fault is found before a model
        is asked."""
        if not self.again:
            return None
        count = sum(1 for _ in self.examples())
        if not count:
            raise UserError(f"{self.name} holds no examples.")
        return count


def source_of(
    files: Sequence[str],
    asked: Sequence[str],
    *,
    columns: Columns | None = None,
    format: str = "auto",
    answers_required: bool = False,
    multi_label: bool = False,
    language: str | None = None,
) -> Source:
    """The source that a command line names. asked: the columns of a model's request. "-": JSON lines on the standard input.

    multi_label: whether texts have any number of labels. language: of all questions; None: what the files say. UserError names
    an example that lacks what the model is asked, or has a second text that the model is not asked.
    """
    stdin = STDIN in files
    if stdin and len(files) > 1:
        raise UserError("--file -: the standard input is read alone, without other files.")
    kind = "qa" if "question" in asked else "text"
    if language and kind != "qa":
        raise UserError("--language is for questions; the model classifies texts.")
    paths = [file if file == STDIN else str(Path(file).expanduser()) for file in files]

    def examples() -> Iterator[Example]:
        found = read_examples(
            paths,
            kind,
            columns=columns,
            format=format,
            answers_required=answers_required,
            multi_label=multi_label,
            language=language,
        )
        for example in found:
            if missing := [name for name in asked if name not in example]:
                raise UserError(
                    f"{example['file']}: {example['place']} has no {missing[0]!r}, which the model is asked with."
                )
            if "text_pair" in example and "text_pair" not in asked:
                raise UserError(
                    f"{example['file']}: {example['place']} is a pair of texts, and the model takes one: leave the column of "
                    "the second text out, or name a model of pairs (--pairs where it was not trained here)."
                )
            yield example

    return Source("The standard input" if stdin else ", ".join(files), examples, again=not stdin)
