"""Labelled texts of any source → a folder: a saved DatasetDict with train, validation and test, and a record.

The splits have the columns id, text, for pairs of texts text_pair, and label: the number of a label, whose names are in the
record, or in multi-label data a list of numbers.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from ..errors import UserError
from ..faults import Fault, refuse
from ..files import FileRecord, file_record, read_text, sha256
from ..paths import SAMPLE, command
from . import label_values, tables
from .columns import Columns
from .hub_files import download_parquet
from .label_values import SENTIMENT
from .prepared import SPLITS, write
from .record import DataRecord, Example
from .text_rows import TextFile, TextRow, read_texts
from .validation_split import carve_by_label, carve_by_label_sets

HUB = {"imdb": "stanfordnlp/imdb"}


@dataclass(frozen=True)
class About:
    """What the record says of prepared texts besides their content."""

    source: str
    name: str
    seed: int
    validation_share: float
    files: list[FileRecord] = field(default_factory=list)
    """What was read; empty: the files of the splits."""
    multi_label: bool = False
    skip: bool = False
    """Whether faulty rows are left out; else they are refused."""
    hub: Mapping[str, str] = field(default_factory=dict)
    """`DataRecord.hub`."""


def prepare_files(
    train: tables.Files,
    test: tables.Files | None,
    output_dir: Path,
    *,
    seed: int = 42,
    validation_share: float = 0.1,
    on_bad_rows: str = "error",
    columns: Columns | None = None,
    multi_label: bool = False,
) -> DataRecord:
    """Prepare files of texts, or pairs of texts, with labels; returns the record.

    Any format of `tables`; columns: field → name of its column, by default `text` (and `text_pair`) and `label`, or names like
    them. Labels are strings or integers; with multi_label a text has any number of them. test: None: as large a part of
    train as validation is taken for it.

    UserError names the file and the row (from 0) or line of each of its first 20 faults. on_bad_rows: "skip" leaves faulty rows
    out, and lists them with the reasons next to the data (`skipped.json`).
    """
    parts = {"train": tables.expand(train)}
    if test is not None:
        parts["test"] = tables.expand(test)
    about = About(
        source="text",
        name=parts["train"][0].name,
        seed=seed,
        validation_share=validation_share,
        multi_label=multi_label,
        skip=on_bad_rows == "skip",
    )
    return prepare_parts(parts, output_dir, about, columns)


def prepare_parts(
    parts: Mapping[str, Sequence[Path]], output_dir: Path, about: About, columns: Columns | None = None
) -> DataRecord:
    """Prepare the files of train, and of validation and test where there are any; returns the record."""
    read = {
        split: [read_texts(path, columns, about.multi_label) for path in paths]
        for split, paths in parts.items()
    }
    skipped: list[Fault] = []
    for split, paths in parts.items():
        for path, file in zip(paths, read[split], strict=True):
            if not about.skip:
                refuse(path, file.faults)
            skipped += file.faults
        if not any(file.rows for file in read[split]):
            raise UserError(f"{', '.join(map(str, paths))}: they hold no texts.")
    rows = {split: [row for file in files for row in file.rows] for split, files in read.items()}
    if not about.files:
        about = replace(about, files=[file_record(path) for paths in parts.values() for path in paths])
    return _prepare(rows, output_dir, about, skipped=skipped, listed=_listed_names(read))


def prepare_sample(output_dir: Path, *, seed: int = 42, validation_share: float = 0.1) -> DataRecord:
    """Prepare the packaged short reviews; needs no network."""
    parts = {split: [SAMPLE / f"reviews-{split}.csv"] for split in ("train", "test")}
    about = About("sample-texts", "sample-texts", seed, validation_share)
    return prepare_parts(parts, output_dir, about)


def prepare_aclimdb(
    path: Path,
    output_dir: Path,
    *,
    seed: int = 42,
    validation_share: float = 0.1,
) -> DataRecord:
    """Prepare the unpacked folder of the original reviews: train and test, in each neg/*.txt and pos/*.txt."""
    parts: dict[str, list[TextRow]] = {}
    files: list[FileRecord] = []
    for split in ("train", "test"):
        parts[split] = []
        for sentiment in ("neg", "pos"):
            folder = Path(path) / split / sentiment
            found = sorted(folder.glob("*.txt"))
            if not found:
                raise UserError(
                    f"--path {path}: {folder} holds no .txt file; name the unpacked aclImdb folder itself."
                )
            digest, size = hashlib.sha256(), 0
            for file in found:
                text = read_text(file)
                digest.update(f"{file.name}:{sha256(file)}\n".encode())
                size += file.stat().st_size
                parts[split].append(TextRow(text, None, (sentiment,), f"{split}/{sentiment}", file.stem))
            # One checksum for a folder: nobody would read a record of 50,000.
            files.append({"name": f"{split}/{sentiment}", "sha256": digest.hexdigest(), "bytes": size})
    about = About("aclimdb", "imdb", seed, validation_share, files)
    return _prepare(parts, output_dir, about, ids=lambda split, n, row: f"{row.file}/{row.place}")


def prepare_hub(
    dataset: str,
    output_dir: Path,
    *,
    seed: int = 42,
    validation_share: float = 0.1,
) -> DataRecord:
    """Prepare `imdb` from the hub."""
    if dataset not in HUB:
        raise UserError(f"--dataset {dataset!r}: choose one of {', '.join(HUB)}.")
    files = download(dataset)
    about = About("hub", dataset, seed, validation_share)
    return prepare_parts(files, output_dir, about)


def download(dataset: str) -> dict[str, list[Path]]:
    """The parquet files of `imdb` by split, from the cache or the hub; NotHere if they are not available."""
    prepare = f"{command('prepare_data.py')} --source"
    return download_parquet(
        HUB[dataset],
        ("train", "test"),
        instead=f"prepare texts of your own: {prepare} text --train_file FILE --test_file FILE (parquet or "
        f"CSV with the columns text and label), or {prepare} aclimdb --path aclImdb, or {prepare} sample-texts",
    )


def fingerprint(splits: Mapping[str, Sequence[Example]], labels: Sequence[str] = SENTIMENT) -> str:
    """sha256 over the content of every text of every split, in order, and over the names of the labels.

    negative and positive are left out of it: data of two sentiments has the fingerprint that it had before names counted.
    """
    digest = hashlib.sha256()
    if tuple(labels) != SENTIMENT:
        digest.update(json.dumps(list(labels), ensure_ascii=True).encode())
    for split in SPLITS:
        digest.update(f"\n{split}\n".encode())
        for e in splits[split]:
            content = [e[name] for name in ("id", "text", "text_pair", "label", "origin") if name in e]
            digest.update(json.dumps(content, ensure_ascii=True).encode())
    return digest.hexdigest()


def _listed_names(read: Mapping[str, Sequence[TextFile]]) -> tuple[str, ...]:
    """The labels that the files list themselves, in their order; UserError where two files list others."""
    found = {file.names for files in read.values() for file in files}
    if len(found) > 1:
        shown = " and ".join(", ".join(names[:5]) or "none" for names in sorted(found))
        raise UserError(f"The files name different classes for their labels: {shown}.")
    return found.pop() if found else ()


def _prepare(
    parts: Mapping[str, list[TextRow]],
    output_dir: Path,
    about: About,
    *,
    skipped: Sequence[Fault] = (),
    listed: Sequence[str] = (),
    ids: Callable[[str, int, TextRow], str] = lambda split, n, row: f"{split}-{n}",
) -> DataRecord:
    """Write what was read, with what is missing (validation, test) carved out of train."""
    _check_pairs(parts)
    labels, unusable = _labels(parts, about, listed), list[Fault]()
    if labels == SENTIMENT:
        parts = _as_sentiments(parts)
    else:
        parts, unusable = _usable(parts, about)
        labels = _labels(parts, about, listed) if unusable else labels
    numbers = {name: i for i, name in enumerate(labels)}
    made = {
        split: [_example(ids(split, n, row), row, numbers, about.multi_label) for n, row in enumerate(rows)]
        for split, rows in parts.items()
    }
    pairs = any(row.text_pair is not None for rows in parts.values() for row in rows)
    carve = carve_by_label_sets if pairs or about.multi_label else carve_by_label
    for split in ("test", "validation"):
        if split not in made:
            made["train"], made[split] = carve(made["train"], about.validation_share, about.seed)
            if not made["train"] or not made[split]:
                more = "" if "test" in parts else ", or give --test_file (for a hub's data set --test_split)"
                raise UserError(f"Too few different texts to carve out {split}; add more{more}.")
    splits = {split: made[split] for split in SPLITS}
    skipped = [*skipped, *unusable]
    kind = "multi-label text" if about.multi_label else "text"
    record = DataRecord(
        kind=kind,
        labels=labels,
        pairs=pairs,
        source=about.source,
        name=about.name,
        files=about.files,
        hub=dict(about.hub),
        skipped=len(skipped),
        seed=about.seed,
        validation_share=about.validation_share,
        test_by=None if "test" in parts else "text",
        **described(splits, labels, kind),
    )
    return write(splits, record, output_dir, features(pairs, about.multi_label), skipped)


class Described(TypedDict):
    """Fields of a record that the splits of texts decide."""

    version: str
    counts: dict[str, dict[str, int]]
    label_counts: dict[str, dict[str, int]]
    test_texts_also_in_train: int
    fingerprint: str


def described(splits: Mapping[str, Sequence[Example]], labels: tuple[str, ...], kind: str) -> Described:
    """What the record says of the content of the splits."""
    trained = {_content(e) for split in ("train", "validation") for e in splits[split]}
    several = "binary" if len(labels) == 2 else f"{len(labels)} labels"
    return {
        "version": "multi-label" if kind == "multi-label text" else several,
        "counts": {split: _counts(part, labels) for split, part in splits.items()},
        "label_counts": {}
        if labels == SENTIMENT
        else {s: _of_labels(part, labels) for s, part in splits.items()},
        "test_texts_also_in_train": len(trained & {_content(e) for e in splits["test"]}),
        "fingerprint": fingerprint(splits, labels),
    }


def features(pairs: bool, multi_label: bool) -> dict[str, object]:
    """The columns of prepared texts, as `datasets.Features` takes them."""
    from datasets import List, Value

    text = {"text": Value("string")} | ({"text_pair": Value("string")} if pairs else {})
    number = Value("int64")
    return {"id": Value("string"), **text, "label": List(number) if multi_label else number}


def _check_pairs(parts: Mapping[str, Sequence[TextRow]]) -> None:
    """UserError where some texts have a second one and others have none."""
    rows = [row for part in parts.values() for row in part]
    single = next((row for row in rows if row.text_pair is None), None)
    pair = next((row for row in rows if row.text_pair is not None), None)
    if single and pair:
        raise UserError(
            f"{single.file}: {single.place} has a single text, {pair.file}: {pair.place} a pair; all must be of one kind "
            "(--columns text=...,text_pair=... names the columns)."
        )


def _labels(parts: Mapping[str, Sequence[TextRow]], about: About, listed: Sequence[str]) -> tuple[str, ...]:
    """Names of the labels, by number: negative and positive, or those that the files list, or else those that occur, sorted."""
    values = {label for rows in parts.values() for row in rows for label in row.labels}
    if not about.multi_label and label_values.is_sentiment(values):
        return SENTIMENT
    # Classes that the files list and never use would be trained for nothing.
    labels = tuple(name for name in dict.fromkeys(listed) if name in values) or label_values.ordered(values)
    if len(labels) < 2:
        held = f"all texts have the label {labels[0]!r}" if labels else "no text has a label"
        raise UserError(f"The data has nothing to tell apart: {held}; at least two labels are needed.")
    if len(labels) > label_values.MOST:
        raise UserError(
            f"The data has {len(labels):,} different labels, such as {', '.join(map(repr, labels[:3]))}; at most "
            f"{label_values.MOST:,} are taken. Is that column the label? --columns label=NAME names another."
        )
    return labels


def _usable(parts: Mapping[str, list[TextRow]], about: About) -> tuple[dict[str, list[TextRow]], list[Fault]]:
    """(the rows that can be trained on and tested, faults of the others, where they are to be left out).

    A label needs two different texts in train, one of them for validation, and one that train lacks cannot be tested.
    """
    kept, faults = dict(parts), list[Fault]()
    # What is left out with one label may have been the second text of another.
    while few := _too_few(
        kept["train"], {label for rows in kept.values() for row in rows for label in row.labels}
    ):
        for split, rows in kept.items():
            for row in rows:
                for label in sorted(few.keys() & row.labels):
                    number = "one text" if few[label] else "no text"
                    reason = f": the label {label!r} has {number} in the training data; at least two different ones are needed."
                    faults.append(row.fault(reason))
            kept[split] = [row for row in rows if not few.keys() & row.labels]
        if not about.skip:
            refuse("The data", [{**f, "place": f"{f['file']}: {f['place']}"} for f in faults])
    if not all(kept.values()):
        raise UserError("No label has two different texts in the training data: is that column the label?")
    return kept, faults


def _too_few(train: Sequence[TextRow], labels: Iterable[str]) -> dict[str, int]:
    """Label → different texts that train has with it, of those that have fewer than two."""
    different: dict[str, set[object]] = {name: set() for name in labels}
    for row in train:
        for label in row.labels:
            different[label].add(row.content)
    return {label: len(texts) for label, texts in different.items() if len(texts) < 2}


def _as_sentiments(parts: Mapping[str, list[TextRow]]) -> dict[str, list[TextRow]]:
    """The rows with negative and positive for however these were spelled; UserError where train lacks one of them."""
    rows = {
        split: [replace(row, labels=tuple(map(label_values.sentiment, row.labels))) for row in part]
        for split, part in parts.items()
    }
    for of_label in SENTIMENT:
        if of_label in _too_few(rows["train"], SENTIMENT):
            raise UserError(
                f"The training data has fewer than two different texts that are {of_label}; add more."
            )
    return rows


def _example(id_: str, row: TextRow, numbers: Mapping[str, int], multi_label: bool) -> Example:
    """A row of prepared data."""
    classes = sorted(numbers[label] for label in row.labels)
    example: dict[str, Any] = {"id": id_, "text": row.text}
    if row.text_pair is not None:
        example["text_pair"] = row.text_pair
    return example | {"label": classes if multi_label else classes[0]}


def _content(example: Mapping[str, Any]) -> tuple[str, str | None]:
    return example["text"], example.get("text_pair")


def _counts(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, int]:
    """Texts and different texts; of multi-label data those without a label, of sentiments those of each."""
    found = {"texts": len(examples), "different": len({_content(e) for e in examples})}
    if tuple(labels) == SENTIMENT:
        return found | _of_labels(examples, labels)
    if examples and isinstance(examples[0]["label"], list):
        found["without_label"] = sum(not e["label"] for e in examples)
    return found


def _of_labels(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, int]:
    """Label → texts that have it."""
    counts = Counter(
        label for e in examples for label in (e["label"] if isinstance(e["label"], list) else [e["label"]])
    )
    return {name: counts[i] for i, name in enumerate(labels)}
