"""Several prepared sets as one: train by weights, validation and test whole, each row with the set that it is of as `origin`."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..scoring.names import in_metric
from . import labelled_texts, question_splits, questions
from .prepared import SPLITS, load, write
from .record import DataRecord, Example

_RESERVED = ("low", "high")
"""Ends of names of metrics: test_f1_low is the lower end of an interval, not a score on the set `low`."""


_CORRECTED = ("repaired", "dropped", "located", "ambiguous", "empty_answers", "made_ids", "made_titles")
"""Fields of a record that are the sum of those of the sets."""


class Part(NamedTuple):
    """A set that is mixed with others."""

    folder: Path
    weight: float
    """How often each of its training rows is taken: 0.3 takes 30% of them, drawn by the seed, 2 takes each twice."""

    @property
    def name(self) -> str:
        """The last part of the folder's name, which is its rows' origin."""
        return self.folder.resolve().name


def parse(text: str) -> list[Part]:
    """`squad_data=0.3,my_data`, prepared folders with their weights (1 where there is none); UserError if it is not of that form."""
    parts = []
    for each in text.split(","):
        folder, equals, number = each.strip().rpartition("=")
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            weight = 0.0
        name = folder if equals else number
        if not name.strip() or not 0 < weight <= 1000:
            raise UserError(
                f"--mix {text}: {each!r} is not FOLDER or FOLDER=WEIGHT with a weight above 0, as in my_data=0.3."
            )
        parts.append(Part(Path(name), weight))
    return parts


def prepare_mix(
    parts: Sequence[Part], output_dir: Path, *, seed: int = 42, name: str | None = None
) -> DataRecord:
    """Mix prepared folders of one kind, one after another; returns the record.

    Rows keep their ids; one that an earlier set has too is called by its origin before it. Texts get the labels of all sets.
    """
    if len(parts) < 2:
        raise UserError("--mix needs two prepared folders or more, separated by commas.")
    names = [part.name for part in parts]
    for each in names:
        if names.count(each) > 1 or each in _RESERVED:
            raise UserError(
                f"--mix: a folder cannot be called {each!r} here; scores are named by it: rename or copy it."
            )
    by_metric: dict[str, str] = {}
    for each in names:
        other_name = by_metric.setdefault(in_metric(each), each)
        if other_name != each:
            raise UserError(
                f"--mix: scores are named by the folders, and the metrics of {other_name!r} and {each!r} would both end in "
                f"{in_metric(each)!r}: rename or copy one of them."
            )
    loaded = [load(part.folder) for part in parts]
    records = [record for _, record in loaded]
    kind = (records[0].kind, records[0].pairs)
    other = next((n for n, record in enumerate(records) if (record.kind, record.pairs) != kind), None)
    if other is not None:
        raise UserError(
            f"--mix: {names[0]} and {names[other]} hold data of different kinds ({_described(records[0])}; "
            f"{_described(records[other])})."
        )
    labels = tuple(dict.fromkeys(label for record in records for label in record.labels))
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    taken: set[str] = set()
    for part, (held, record) in zip(parts, loaded, strict=True):
        renumber = _renumbering(record.labels, labels)
        rows = {split: [renumber(dict(row)) for row in held[split]] for split in SPLITS}
        rows["train"] = _weighted(rows["train"], part.weight, seed)
        for split in SPLITS:
            splits[split] += [
                row | {"id": _free_id(row, part.name, taken), "origin": part.name} for row in rows[split]
            ]
    return _written(splits, output_dir, parts, records, labels, seed, name)


def _described(record: DataRecord) -> str:
    return f"{record.kind}, pairs of texts" if record.pairs else record.kind


def _renumbering(own: Sequence[str], labels: Sequence[str]) -> Callable[[Example], Example]:
    numbers = {n: labels.index(label) for n, label in enumerate(own)}

    def renumbered(row: Example) -> Example:
        if "label" not in row:
            return row
        label = row["label"]
        new = [numbers[each] for each in label] if isinstance(label, list) else numbers[label]
        return row | {"label": sorted(new) if isinstance(new, list) else new}

    return renumbered


def _weighted(rows: list[Example], weight: float, seed: int) -> list[Example]:
    """Each row as often as the weight says; what is left over is drawn by the seed, in the order of the rows."""
    times, rest = int(weight), round((weight - int(weight)) * len(rows))
    drawn = sorted(random.Random(seed).sample(range(len(rows)), rest))
    found = [row | ({"id": f"{row['id']}#{n + 1}"} if n else {}) for n in range(times) for row in rows]
    again = f"#{times + 1}" if times else ""
    found += [rows[i] | {"id": f"{rows[i]['id']}{again}"} for i in drawn]
    if not found:
        raise UserError(f"--mix: the weight {weight} takes none of {len(rows)} training rows.")
    return found


def _free_id(row: Example, origin: str, taken: set[str]) -> str:
    found = str(row["id"])
    while found in taken:
        found = f"{origin}/{found}"
    taken.add(found)
    return found


def _written(
    splits: Mapping[str, list[Example]],
    output_dir: Path,
    parts: Sequence[Part],
    records: Sequence[DataRecord],
    labels: tuple[str, ...],
    seed: int,
    name: str | None,
) -> DataRecord:
    first = records[0]
    shared: dict[str, Any] = dict(
        kind=first.kind,
        labels=labels,
        pairs=first.pairs,
        source="mix",
        name=name or "+".join(part.name for part in parts),
        files=[file for record in records for file in record.files],
        mix=[
            {"name": part.name, "weight": part.weight, "fingerprint": record.fingerprint}
            for part, record in zip(parts, records, strict=True)
        ],
        seed=seed,
        validation_share=first.validation_share,
    )
    if first.kind == "qa":
        unanswerable = any(record.has_unanswerable for record in records)
        sums: dict[str, Any] = {
            name: sum(getattr(each, name) or 0 for each in records) for name in _CORRECTED
        }
        record = DataRecord(
            **shared,
            version="v2.0" if unanswerable else "v1.1",
            language=question_splits.only_language(splits),
            **sums,
            notes=[note for each in records for note in each.notes or ()][:100],
            validation_by="given",
            **question_splits.split_counts(splits),
            fingerprint=questions.fingerprint(splits),
        )
        return write(splits, record, output_dir, question_splits.features(splits))
    record = DataRecord(**shared, **labelled_texts.described(splits, labels, first.kind))
    columns = labelled_texts.features(first.pairs, first.kind == "multi-label text")
    return write(splits, record, output_dir, columns | {"origin": columns["id"]})
