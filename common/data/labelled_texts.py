"""Labelled texts of any source → `imdb_data/`: a saved DatasetDict with train, validation and test, and a record.

The splits have the columns id, text and label (0 negative, 1 positive).
"""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line
from ..faults import Fault, refuse
from ..files import FileRecord, file_record, read_text, sha256
from ..paths import SAMPLE, command
from .hub_files import download_parquet
from .prepared import SPLITS, write
from .record import DataRecord, Example
from .validation_split import carve_by_label

LABELS = ("negative", "positive")
HUB = {"imdb": "stanfordnlp/imdb"}

_SPELLINGS = {"0": 0, "neg": 0, "negative": 0, "1": 1, "pos": 1, "positive": 1}
_SPELLINGS |= {"label_0": 0, "label_1": 1}

_COLUMNS = {
    "text": ("text", "review", "sentence", "content", "comment", "tweet"),
    "label": ("label", "sentiment", "labels", "target", "class", "polarity"),
}
"""Names of the two columns, in upper or lower case; the first one found is taken."""

_DELIMITERS = ",;\t|"

Row = tuple[object, object] | str
"""Text and label as they were read, or what is wrong with the row."""


def prepare_files(
    train: Path,
    test: Path,
    output_dir: Path,
    *,
    seed: int = 42,
    validation_share: float = 0.1,
    on_bad_rows: str = "error",
) -> DataRecord:
    """Prepare two files with a text and a label (0 and 1, or neg and pos, in several spellings); returns the record.

    Parquet, JSON lines, or CSV with commas, semicolons or tabs; the columns are `text` and `label`, or a name like them.

    UserError names the file and the row (from 0) or line of each of its first 20 faults. on_bad_rows: "skip" leaves faulty rows
    out, and lists them with the reasons next to the data (`skipped.json`).
    """
    skipped: list[Fault] | None = [] if on_bad_rows == "skip" else None
    parts = {
        split: read_files([Path(file)], split, skipped) for split, file in (("train", train), ("test", test))
    }
    files = [file_record(file) for file in (train, test)]
    name = Path(train).name
    return _prepare(parts, output_dir, "text", name, files, seed, validation_share, skipped or ())


def prepare_sample(output_dir: Path, *, seed: int = 42, validation_share: float = 0.1) -> DataRecord:
    """Prepare the packaged short reviews; needs no network."""
    files = {split: SAMPLE / f"reviews-{split}.csv" for split in ("train", "test")}
    parts = {split: read_files([file], split) for split, file in files.items()}
    records = [file_record(file) for file in files.values()]
    return _prepare(parts, output_dir, "sample-texts", "sample-texts", records, seed, validation_share)


def prepare_aclimdb(
    path: Path, output_dir: Path, *, seed: int = 42, validation_share: float = 0.1
) -> DataRecord:
    """Prepare the unpacked folder of the original reviews: train and test, in each neg/*.txt and pos/*.txt."""
    parts: dict[str, list[Example]] = {}
    files: list[FileRecord] = []
    for split in ("train", "test"):
        parts[split] = []
        for label, name in enumerate(("neg", "pos")):
            folder = Path(path) / split / name
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
                parts[split].append({"id": f"{split}/{name}/{file.stem}", "text": text, "label": label})
            # One checksum for a folder: nobody would read a record of 50,000.
            files.append({"name": f"{split}/{name}", "sha256": digest.hexdigest(), "bytes": size})
    return _prepare(parts, output_dir, "aclimdb", "imdb", files, seed, validation_share)


def prepare_hub(
    dataset: str, output_dir: Path, *, seed: int = 42, validation_share: float = 0.1
) -> DataRecord:
    """Prepare `imdb` from the hub."""
    if dataset not in HUB:
        raise UserError(f"--dataset {dataset!r}: choose one of {', '.join(HUB)}.")
    files = download(dataset)
    parts = {split: read_files(names, split) for split, names in files.items()}
    records = [file_record(file) for names in files.values() for file in names]
    return _prepare(parts, output_dir, "hub", dataset, records, seed, validation_share)


def download(dataset: str) -> dict[str, list[Path]]:
    """The parquet files of `imdb` by split, from the cache or the hub; NotHere if they are not available."""
    prepare = f"{command('prepare_data.py')} --source"
    return download_parquet(
        HUB[dataset],
        ("train", "test"),
        instead=f"prepare texts of your own: {prepare} text --train_file FILE --test_file FILE (parquet or "
        f"CSV with the columns text and label), or {prepare} aclimdb --path aclImdb, or {prepare} sample-texts",
    )


def fingerprint(splits: Mapping[str, Sequence[Example]]) -> str:
    """sha256 over the content of every text of every split, in order."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"\n{split}\n".encode())
        for e in splits[split]:
            digest.update(json.dumps([e["id"], e["text"], e["label"]], ensure_ascii=True).encode())
    return digest.hexdigest()


def read_files(files: Sequence[Path], split: str, skipped: list[Fault] | None = None) -> list[Example]:
    """Rows `id`, `text`, `label` of files. skipped: takes the faulty rows; without it they are refused."""
    examples: list[Example] = []
    for path in files:
        faults: list[Fault] = []
        for place, row in _reader(path)(path):
            reason = row if isinstance(row, str) else _fault(*row)
            if isinstance(row, str) or reason:
                faults.append({"file": path.name, "place": place, "reason": reason})
                continue
            text, label = row
            examples.append({"id": f"{split}-{len(examples)}", "text": text, "label": _label(label)})
        if skipped is None:
            refuse(path, faults)
        else:
            skipped += faults
    if not examples:
        raise UserError(f"{', '.join(map(str, files))}: they hold no texts.")
    return examples


def _fault(text: object, label: object) -> str:
    """What is wrong with a row; empty if nothing is."""
    if not isinstance(text, str) or not text.strip():
        what = "is empty" if text is None or isinstance(text, str) else f"is {text!r}, not text"
        return f": the text {what}; remove the row or give its text."
    if _label(label) is None:
        return f": the label is {label!r}; it must be 0 or 1, neg or pos, negative or positive, or LABEL_0 or LABEL_1."
    try:
        text.encode()
    except UnicodeEncodeError:
        return ": the text has half of a surrogate pair; correct it."
    return ""


def _label(label: object) -> int | None:
    """0 or 1; None if the label means neither. A number may have zeros after its point: pandas writes 1.0."""
    if isinstance(label, bool):
        return None
    return _SPELLINGS.get(re.sub(r"^([01])\.0*$", r"\1", str(label).strip().lower()))


def _reader(path: Path) -> Callable[[Path], Iterator[tuple[str, Row]]]:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    return {".parquet": _parquet, ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json_lines}.get(
        kind, _csv
    )


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    """(line at which it ends, row) of each record; the header shows which delimiter separates the columns."""
    content = read_text(path)
    if content.lstrip().startswith(("{", "[")):
        yield from _json_lines(path)
        return
    # Reviews may be longer than the 131,072 characters that a field may have by default.
    csv.field_size_limit(10**9)
    delimiter = _delimiter(content)
    try:
        records = _records(content, delimiter)
    except csv.Error as error:
        if delimiter != "\t":
            raise UserError(f"{path}: {error}.") from None
        # Most files with tabs quote nothing: quotation marks in them belong to the text.
        records = _records(content, delimiter, quoting=csv.QUOTE_NONE)
    header = records[0][1] if records else []
    names = _named(header)
    if isinstance(names, str):
        raise UserError(f"{path}{names}")
    text, label = map(header.index, names)
    for line, record in records[1:]:
        if len(record) > len(header):
            yield (
                f"line {line}",
                f" has more fields than the header; quote texts that hold {delimiter!r}.",
            )
        else:
            record += [None] * (len(header) - len(record))
            yield f"line {line}", (record[text], record[label])


def _records(content: str, delimiter: str, **how: Any) -> list[tuple[int, list[str | None]]]:
    """(line at which it ends, fields) of each record that is not empty; csv.Error names the line."""
    reader = csv.reader(io.StringIO(content, newline=""), strict=True, delimiter=delimiter, **how)
    try:
        return [(reader.line_num, [*record]) for record in reader if record]
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num}: {error}") from None


def _delimiter(content: str) -> str:
    """The delimiter that splits the header into the most known names: names contain none, unlike the texts below them."""
    header = content.partition("\n")[0].rstrip("\r")

    def known(delimiter: str) -> int:
        names = {name.strip().strip('"').lower() for name in header.split(delimiter)}
        return sum(bool(names & set(wanted)) for wanted in _COLUMNS.values())

    return max(_DELIMITERS, key=known)


def _json_lines(path: Path) -> Iterator[tuple[str, Row]]:
    """(line, row) of each object: one object a line, or a list of objects."""
    content = read_text(path)
    if content.lstrip().startswith("["):
        numbered = [("row", 0, content)]
    else:
        # Not splitlines: JSON allows U+2028 and U+0085 within a text.
        numbered = [("line", n, line) for n, line in enumerate(content.split("\n"), 1) if line.strip()]
    for what, n, source in numbered:
        try:
            value = json.loads(source)
        except (ValueError, RecursionError) as error:
            if what == "row":
                raise UserError(f"{path} is not JSON: {error}.") from None
            yield f"line {n}", f" is not JSON: {error}."
            continue
        rows = enumerate(value) if isinstance(value, list) else [(n, value)]
        for place, row in rows:
            yield f"{'row' if isinstance(value, list) else 'line'} {place}", _text_and_label(row)


def _text_and_label(row: object) -> Row:
    if not isinstance(row, dict):
        return f" must be an object with text and label, not {type(row).__name__}."
    names = _named(row)
    return names if isinstance(names, str) else (row[names[0]], row[names[1]])


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    """(row, text and label) of each row."""
    import pyarrow
    import pyarrow.parquet

    try:
        with open(path, "rb") as file:
            table = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{path} cannot be read as parquet: {reason}") from None
    names = _named(table.column_names)
    if isinstance(names, str):
        raise UserError(f"{path}{names}")
    for n, values in enumerate(zip(*(table[name] for name in names), strict=True)):
        try:
            text, label = (value.as_py() for value in values)
            yield f"row {n}", (text, label)
        except UnicodeDecodeError:
            yield f"row {n}", " is not UTF-8; write the file again from UTF-8 text."


def _named(columns: Iterable[Any]) -> tuple[str, str] | str:
    """Names of the columns of text and label, or what is wrong with the columns."""
    columns = list(columns)
    by_name = {str(name).strip().lower(): name for name in reversed(columns)}
    found = [next((by_name[n] for n in known if n in by_name), None) for known in _COLUMNS.values()]
    text, label = found
    if text is None or label is None:
        wanted = list(_COLUMNS)[found.index(None)]
        held = ", ".join(map(repr, columns)) or "none"
        return f" has no column {wanted!r} (or {', '.join(_COLUMNS[wanted][1:])}); its columns are {held}."
    return text, label


def _prepare(
    parts: dict[str, list[Example]],
    output_dir: Path,
    source: str,
    name: str,
    files: list[FileRecord],
    seed: int,
    share: float,
    skipped: Sequence[Fault] = (),
) -> DataRecord:
    """Write what was read, with validation carved out of train."""
    from datasets import Value

    for label, of_label in enumerate(LABELS):
        if len({e["text"] for e in parts["train"] if e["label"] == label}) < 2:
            raise UserError(
                f"The training data has fewer than two different texts that are {of_label}; add more."
            )
    train, validation = carve_by_label(parts["train"], share, seed)
    splits = dict(zip(SPLITS, (train, validation, parts["test"]), strict=True))
    trained = {e["text"] for e in parts["train"]}
    record = DataRecord(
        kind="text",
        labels=LABELS,
        source=source,
        name=name,
        version="binary",
        files=files,
        skipped=len(skipped),
        seed=seed,
        validation_share=share,
        counts={split: _counts(part) for split, part in splits.items()},
        test_texts_also_in_train=len(trained & {e["text"] for e in parts["test"]}),
        fingerprint=fingerprint(splits),
    )
    columns = {"id": Value("string"), "text": Value("string"), "label": Value("int64")}
    return write(splits, record, output_dir, columns, skipped)


def _counts(examples: Sequence[Example]) -> dict[str, int]:
    labels = Counter(e["label"] for e in examples)
    by_name = {name: labels[label] for label, name in enumerate(LABELS)}
    return {"texts": len(examples), "different": len({e["text"] for e in examples}), **by_name}
