"""Labels as people write them: one or several of a text, as text, numbers, lists or columns, and the names that they get."""

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MOST = 1_000
"""Different labels that a data set may have."""

SENTIMENT = ("negative", "positive")
"""Names of the labels of data whose labels are all spelled in one of the ways of `_SENTIMENT`."""

_SENTIMENT = {"0": 0, "neg": 0, "negative": 0, "label_0": 0, "1": 1, "pos": 1, "positive": 1, "label_1": 1}
_SEPARATORS = "|;"
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")


def spelled(value: object) -> str:
    """A label as its name: a string without white space around it, or an integer; "" if the value is neither.

    A number may have zeros after its point, because pandas writes 1.0. A boolean is named as Python writes it.
    """
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else ""
    if not isinstance(value, str | int):
        return ""
    text = str(value).strip()
    whole = _WHOLE.fullmatch(text)
    return "" if _SURROGATE.search(text) else whole[1] if whole else text


def several(value: object) -> list[str] | str:
    """The labels of a text that may have any number, each once, or what is wrong with them, as the end of a sentence.

    A list, or a text: a list as JSON or Python writes it, or labels with `|` between them, or else with `;`. Nothing, an empty
    text and an empty list stand for no label.
    """
    if value is None:
        return []
    if isinstance(value, str):
        value = _written(value)
    elif not isinstance(value, list | tuple):
        value = [value]
    found = dict.fromkeys(map(spelled, value))
    if "" in found:
        return f": the labels are {value!r}; each must be a string or an integer."
    return list(found)


def _written(text: str) -> list[Any]:
    """The labels of a text that lists them."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                values = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(values, list):
                return values
    separator = next((each for each in _SEPARATORS if each in text), None)
    return [part for part in text.split(separator) if part.strip()] if separator else [text] * bool(text)


def marked(row: Mapping[str, object], columns: Sequence[str]) -> list[str] | str:
    """The columns of a row that hold a 1 (each is a label), or what is wrong with one, as the end of a sentence."""
    found = []
    for column in columns:
        mark = spelled(row.get(column)).lower()
        if mark in ("1", "true"):
            found.append(column)
        elif mark not in ("0", "false"):
            return f": the column {column!r} is {row.get(column)!r}; as a label it must be 0 or 1."
    return found


def ordered(values: Iterable[str]) -> tuple[str, ...]:
    """The names of labels in the order in which models have them: by number if all are integers, else by code point."""
    names = set(values)
    try:
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(names))


def is_sentiment(values: Iterable[str]) -> bool:
    """Whether all labels spell negative or positive: 0 and 1, neg and pos, negative and positive, LABEL_0 and LABEL_1."""
    return all(value.lower() in _SENTIMENT for value in values)


def sentiment(value: str) -> str:
    """The name of a label for which `is_sentiment` holds."""
    return SENTIMENT[_SENTIMENT[value.lower()]]


def alike(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups of labels that differ in case or white space alone, and are probably meant to be one."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(" ".join(name.casefold().split()), []).append(name)
    return [tuple(group) for group in found.values() if len(group) > 1]


def class_names(path: Path, column: str) -> tuple[str, ...]:
    """Names of the numbers in a column that `datasets` wrote as a ClassLabel, or as a list of them; empty for any other."""
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            schema = pyarrow.parquet.read_schema(path)
        else:
            with pyarrow.memory_map(str(path)) as source:
                schema = pyarrow.ipc.open_stream(source).schema
        held = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = held["info"]["features"][column]
    except (OSError, pyarrow.ArrowException, ValueError, KeyError, TypeError):
        return ()
    while isinstance(feature, Mapping) and "feature" in feature:
        feature = feature["feature"]
    # Old versions wrote a list of one feature.
    feature = feature[0] if isinstance(feature, list) and feature else feature
    names = feature.get("names") if isinstance(feature, Mapping) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()
