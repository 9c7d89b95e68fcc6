"""What the splits of questions are together: their columns, their counts, their language."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from .record import Example


def only_language(splits: Mapping[str, Sequence[Example]]) -> str | None:
    """The language of all questions; None if there are several, or if some name none."""
    found = {e.get("language") for part in splits.values() for e in part}
    return found.pop() if len(found) == 1 else None


def features(splits: Mapping[str, Sequence[Example]]) -> dict[str, object]:
    """The columns of prepared questions, as `datasets.Features` takes them: `origin`, the set that a question is of, and
    `language` are there if a question has them. Each of the questions gets these columns."""
    from datasets import Value

    answers = {"text": [Value("string")], "answer_start": [Value("int32")]}
    names = ["id", "title", "context", "question"]
    for name in ("origin", "language"):
        if any(e.get(name) for part in splits.values() for e in part):
            names.append(name)
            for e in (e for part in splits.values() for e in part):
                e.setdefault(name, None)
    return {name: Value("string") for name in names} | {"answers": answers}


class SplitCounts(TypedDict):
    """Fields of a record that are counted in the splits."""

    counts: dict[str, dict[str, int]]
    validation_paragraphs_also_in_train: int
    test_paragraphs_also_in_train: int


def split_counts(splits: Mapping[str, Sequence[Example]]) -> SplitCounts:
    """How much there is in the splits of questions, and how many of their paragraphs they share."""
    contexts = {split: {e["context"] for e in part} for split, part in splits.items()}
    return {
        "counts": {name: _counts(part) for name, part in splits.items()},
        "validation_paragraphs_also_in_train": len(contexts["train"] & contexts["validation"]),
        "test_paragraphs_also_in_train": len((contexts["train"] | contexts["validation"]) & contexts["test"]),
    }


def _counts(examples: Sequence[Example]) -> dict[str, int]:
    return {
        "questions": len(examples),
        "answerable": sum(bool(e["answers"]["text"]) for e in examples),
        "paragraphs": len({e["context"] for e in examples}),
        "titles": len({e["title"] for e in examples}),
    }
