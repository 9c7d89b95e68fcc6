"""Labelled texts of any source → `imdb_data/`: a saved DatasetDict with train, validation and test, and a record.

The splits have the columns id, text and label (0 negative, 1 positive).
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import UserError
from ..faults import Fault, refuse
from ..files import FileRecord, file_record, read_text, sha256
from ..paths import SAMPLE, command
from . import tables
from .columns import Fields
from .hub_files import download_parquet
from .prepared import SPLITS, write
from .record import DataRecord, Example
from .validation_split import carve_by_label

LABELS = ("negative", "positive")
HUB = {"imdb": "stanfordnlp/imdb"}

_SPELLINGS = {"0": 0, "neg": 0, "negative": 0, "1": 1, "pos": 1, "positive": 1}
_SPELLINGS |= {"label_0": 0, "label_1": 1}


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
    fields = Fields(("text", "label"))
    for path in files:
        faults: list[Fault] = []
        table = tables.read(path)
        if table.columns is not None and isinstance(names := fields.named(table.columns), str):
            raise UserError(f"{path}{names}")
        for place, row in table.rows:
            found = row if isinstance(row, str) else fields.of(row)
            reason = found if isinstance(found, str) else _fault(found["text"], found["label"])
            if isinstance(found, str) or reason:
                faults.append({"file": path.name, "place": place, "reason": reason})
                continue
            examples.append(
                {"id": f"{split}-{len(examples)}", "text": found["text"], "label": _label(found["label"])}
            )
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
