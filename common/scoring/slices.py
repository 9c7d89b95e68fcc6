"""Strengths and weaknesses of a model: scores by kind of example, its worst examples, agreement of two models."""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from .bootstrap import Scores, bootstrap_interval
from .languages import without_region, words

_QUESTION_WORDS = (
    ("how many", r"\bhow (many|much)\b"),
    ("who", r"\b(who|whom|whose)\b"),
    ("when", r"\b(when|(what|which) (year|date|century|decade|month|day))\b"),
    ("where", r"\b(where|(what|which) (city|country|place|state|region))\b"),
    ("why", r"\bwhy\b"),
    ("how", r"\bhow\b"),
    ("which", r"\bwhich\b"),
    ("what", r"\bwhat\b"),
)
_BINS = {
    "answer length": ((1, "1 word"), (3, "2-3 words"), (7, "4-7 words"), (None, "8 words or more")),
    "context length": (
        (100, "up to 100 words"),
        (200, "101-200 words"),
        (400, "201-400 words"),
        (None, "over 400 words"),
    ),
    "text length": (
        (100, "up to 100 words"),
        (200, "101-200 words"),
        (400, "201-400 words"),
        (None, "over 400 words"),
    ),
}


def question_type(question: str) -> str:
    """The question word: who, when, where, why, how many, how, which, what or other; the more specific one counts."""
    lower = question.lower()
    return next((name for name, pattern in _QUESTION_WORDS if re.search(pattern, lower)), "other")


def text_slices(example: Mapping) -> dict[str, str]:
    """Dimension → slice of a text, or a pair of texts, with a label."""
    return {
        "text length": _bin("text length", _whole(example)),
        "label": str(example.get("label_name", example["label"])),
        **_origin(example),
    }


def label_set_slices(example: Mapping) -> dict[str, str]:
    """Dimension → slice of a text, or a pair of texts, with any number of labels; each of its labels is a dimension."""
    count = len(example["label"])
    number = ("none", "1", "2")[count] if count < 3 else "3 or more"
    return {
        "text length": _bin("text length", _whole(example)),
        "number of labels": number,
        **{f"label {name}": "texts that have it" for name in example.get("label_names", ())},
        **_origin(example),
    }


def question_slices(example: Mapping) -> dict[str, str]:
    """Dimension → slice of a question on a context."""
    golds, language = example["answers"]["text"], example.get("language")
    found = {"language": language} if language else {}
    # The question words are English.
    if not language or without_region(language) == "en":
        found["question type"] = question_type(example["question"])
    found |= {
        "context length": _bin("context length", example["context"]),
        "answerable": "answerable" if golds else "unanswerable",
        **_origin(example),
    }
    # The answer that is trained on; unanswerable questions have a slice of their own.
    return found | ({"answer length": _bin("answer length", golds[0])} if golds else {})


def scores_by_slice(
    examples: Sequence[Mapping], scores: Scores, slices_of: Callable[[Mapping], dict[str, str]]
) -> pd.DataFrame:
    """One row for each slice: `dimension`, `slice`, `examples`, and the mean `score` with its 95% interval `low` and
    `high`, in percent. scores: of each example, 0 to 1. slices_of: example → its slice of each dimension."""
    rows = []
    for (dimension, name), indices in members(examples, slices_of).items():
        values = 100 * np.asarray(scores, dtype=float)[indices]
        low, high = bootstrap_interval(values)
        rows.append(
            {
                "dimension": dimension,
                "slice": name,
                "examples": len(indices),
                "score": values.mean(),
                "low": low,
                "high": high,
            }
        )
    columns = ["dimension", "slice", "examples", "score", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def members(
    examples: Sequence[Mapping], slices_of: Callable[[Mapping], dict[str, str]]
) -> dict[tuple[str, str], np.ndarray]:
    """(dimension, slice) → indices of its examples, the slices of a dimension by size."""
    found: dict[tuple[str, str], list[int]] = {}
    for i, example in enumerate(examples):
        for key in slices_of(example).items():
            found.setdefault(key, []).append(i)
    dimensions = list(dict.fromkeys(dimension for dimension, _ in found))
    order = sorted(found, key=lambda key: (dimensions.index(key[0]), -len(found[key]), key[1]))
    return {key: np.array(found[key]) for key in order}


def worst(
    examples: Sequence[Mapping], rows: Sequence[Mapping], metric: str, confidence: str, n: int = 20
) -> list[dict]:
    """The examples with the lowest scores; among equal scores, those of the highest confidence first.

    rows: of predictions/test.json, in the order of the examples; confidence: the row's field to rank by.
    """
    order = sorted(range(len(rows)), key=lambda i: (rows[i][metric], -(rows[i].get(confidence) or 0.0)))
    return [
        {**rows[i], **({"references": examples[i]["answers"]["text"]} if "answers" in examples[i] else {})}
        for i in order[:n]
        if rows[i][metric] < 1
    ]


def agreement(a: Scores, b: Scores) -> dict[str, int]:
    """How often both of two models are right (score 1), only one, and neither, on the same examples."""
    first, second = np.asarray(a) == 1, np.asarray(b) == 1
    return {
        "both": int((first & second).sum()),
        "only_first": int((first & ~second).sum()),
        "only_second": int((~first & second).sum()),
        "neither": int((~first & ~second).sum()),
    }


def _whole(example: Mapping) -> str:
    return f"{example['text']} {example.get('text_pair', '')}"


def _origin(example: Mapping) -> dict[str, str]:
    """The set that an example of mixed data is of."""
    return {"origin": example["origin"]} if "origin" in example else {}


def _bin(dimension: str, text: str) -> str:
    count = len(words(text))
    return next(name for limit, name in _BINS[dimension] if limit is None or count <= limit)
