"""Questions of any source → `squad_data/`: a saved DatasetDict with train, validation and test, and a record of what was read.

The splits have the columns of the hub's `squad`: id, title, context, question, answers (text, answer_start).
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import text_data
from .carving import carve
from .errors import UserError
from .files import file_record
from .hub import download_parquet, hub_answers
from .prepared import SPLITS, has_content, held, load, write
from .squad_json import SquadFile, read_squad_json

SAMPLE = Path(__file__).resolve().parent / "sample"
HUB = {"squad": "rajpurkar/squad", "squad_v2": "rajpurkar/squad_v2"}


def prepare_files(
    train: Path,
    test: Path,
    output_dir: Path,
    *,
    name: str | None = None,
    seed: int = 42,
    validation_share: float = 0.1,
    on_bad_rows: str = "error",
) -> dict:
    """Prepare two SQuAD JSON files; returns the record. UserError names the file and place of any fault.

    Answers that cannot be placed in their context leave train and validation, and stay in test, where they are scored.
    on_bad_rows: "skip" leaves faulty questions out, and writes them with their reasons beside the data (`skipped.json`).
    """
    read = [read_squad_json(file, on_bad_rows) for file in (train, test)]
    if not read[0].placed:
        raise UserError(f"{train}: no answer in it stands in its context, so there is nothing to train on.")
    if read[0].version != read[1].version:
        raise UserError(
            f"{train} is SQuAD {read[0].version} and {test} is {read[1].version}: train and test must be of one version."
        )
    about = {
        "source": "files" if name is None else name,
        "name": name or Path(train).name,
        "version": read[0].version,
        "files": [file_record(file.path) for file in read],
        "repaired": sum(file.repaired for file in read),
        "dropped": sum(file.dropped for file in read),
        "notes": _notes(read),
    }
    counts = sum((file.counts for file in read), Counter())
    about |= {name: number for name, number in sorted(counts.items()) if number}
    skipped = [{"file": file.path.name, **fault} for file in read for fault in file.skipped]
    if skipped:
        about["skipped"] = len(skipped)
    return _prepare(
        read[0].placed, None, read[1].examples, output_dir, about, seed, validation_share, skipped
    )


def prepare_sample(output_dir: Path, *, seed: int = 42, validation_share: float = 0.1) -> dict:
    """Prepare the sample that comes with the project; needs no network."""
    return prepare_files(
        SAMPLE / "train-v2.0.json",
        SAMPLE / "test-v2.0.json",
        output_dir,
        name="sample",
        seed=seed,
        validation_share=validation_share,
    )


def prepare_hub(dataset: str, output_dir: Path, *, seed: int = 42, validation_share: float = 0.1) -> dict:
    """Prepare `squad` or `squad_v2` from the hub; its validation split is the official development set, our test."""
    if dataset not in HUB:
        raise UserError(f"--dataset {dataset!r}: choose one of {', '.join(HUB)}.")
    import pyarrow.parquet

    files = _download(dataset)
    parts = {split: pyarrow.parquet.read_table(names).to_pylist() for split, names in files.items()}
    for split, part in parts.items():
        _check(part, f"The hub's {HUB[dataset]}, split {split!r}", trained=split == "train")
    about = {
        "source": "hub",
        "name": dataset,
        "version": "v2.0" if dataset == "squad_v2" else "v1.1",
        "files": [file_record(file) for names in files.values() for file in names],
    }
    return _prepare(parts["train"], None, parts["validation"], output_dir, about, seed, validation_share)


def _download(dataset: str) -> dict[str, list[Path]]:
    return download_parquet(
        HUB[dataset], ("train", "validation"), online=hub_answers(), instead="use --source files or sample"
    )


def prepare_saved(path: Path, output_dir: Path, *, seed: int = 42, validation_share: float = 0.1) -> dict:
    """Prepare a folder written by `save_to_disk`: train, validation and test as they are, or train and one other as test."""
    from datasets import load_from_disk

    if not (Path(path) / "dataset_dict.json").is_file():
        raise UserError(f"--path {path}: no folder written by DatasetDict.save_to_disk.")
    try:
        saved = load_from_disk(str(path))
    except Exception as error:
        raise UserError(f"--path {path} cannot be read: {str(error).splitlines()[0]}") from None
    if "train" not in saved or not {"validation", "test"} & set(saved):
        raise UserError(f"--path {path} holds {sorted(saved)}: it must hold train, and test or validation.")
    parts = {split: saved[split].to_list() for split in SPLITS if split in saved}
    for split, part in parts.items():
        missing = {"id", "context", "question", "answers"} - set(saved[split].column_names)
        if missing:
            raise UserError(f"--path {path}: split {split!r} has no column {sorted(missing)[0]!r}.")
        for example in part:
            example.setdefault("title", example["context"])
        _check(part, f"--path {path}, split {split!r}", trained=split == "train")
    train, test = parts["train"], parts["test" if "test" in parts else "validation"]
    validation = parts["validation"] if len(parts) == 3 else None
    everything = [e for part in parts.values() for e in part]
    about = {
        "source": "saved",
        "name": Path(path).name,
        "version": "v1.1" if all(e["answers"]["text"] for e in everything) else "v2.0",
        "files": [file_record(file) for file in sorted(Path(path).rglob("*.arrow"))],
    }
    return _prepare(train, validation, test, output_dir, about, seed, validation_share)


def ensure(data_dir: str | Path, kind: str = "qa") -> tuple:
    """`load`, after making the folder if there is none; kind: "qa" or "text", what it must hold.

    Questions: `squad` from the cache or a hub that answers in seconds, else the sample. Texts: `imdb` likewise. What it became is printed, because it decides what the figures mean. Two processes may
    call it at once.
    """
    folder = Path(data_dir)
    if not has_content(folder):
        with held(folder):
            if not has_content(folder):
                text_data.make(folder) if kind == "text" else _make(folder)
    splits, record = load(folder)
    found = record.get("kind", "qa")
    if found != kind:
        raise UserError(
            f"--data_dir {folder} holds data of the kind {found!r}; this task needs {kind!r}: name another folder."
        )
    return splits, record


def _make(folder: Path) -> None:
    try:
        _download("squad")
        hub = True
    except UserError:
        hub = False
    chosen = "the hub's squad" if hub else "the packaged sample (the hub's squad cannot be had)"
    print(f"\n*** {folder} holds no data: preparing {chosen}. ***\n", file=sys.stderr, flush=True)
    if hub:
        prepare_hub("squad", folder)
    else:
        prepare_sample(folder)


def fingerprint(splits: dict[str, Sequence[dict]]) -> str:
    """sha256 over the content of every question of every split, in order."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"\n{split}\n".encode())
        for e in splits[split]:
            row = [
                e["id"],
                e["title"],
                e["context"],
                e["question"],
                e["answers"]["text"],
                e["answers"]["answer_start"],
            ]
            digest.update(json.dumps(row, ensure_ascii=True).encode())
    return digest.hexdigest()


def _check(examples: list[dict], where: str, trained: bool = True) -> None:
    """UserError, with the question's id, where rows of a dataset are not what `read_squad_json` would have let through."""
    if not examples:
        raise UserError(f"{where} has no questions.")
    for row, e in enumerate(examples):
        place = f"{where}, row {row} (id {e['id']!r})"
        for name in ("id", "title", "context", "question"):
            if not isinstance(e[name], str) or not e[name].strip() and name != "title":
                raise UserError(f"{place}: {name} is {e[name]!r}; it must be text.")
        try:
            answers = list(zip(e["answers"]["text"], e["answers"]["answer_start"], strict=True))
            # What is scored alone may hold references without a place.
            placed = [
                not trained
                and start == -1
                or bool(text.strip())
                and start >= 0
                and e["context"].startswith(text, start)
                for text, start in answers
            ]
        except (TypeError, KeyError, ValueError, AttributeError):
            raise UserError(
                f"{place}: answers must be two lists of one length, text and answer_start, not {e['answers']!r}."
            ) from None
        if not all(placed):
            text, start = answers[placed.index(False)]
            raise UserError(f"{place}: {text!r} does not stand at {start} of its context.")


def _prepare(train, validation, test, output_dir, about, seed, share, skipped=()) -> dict:
    unit = "given"
    if validation is None:
        train, validation, unit = carve(train, share, seed)
    splits = dict(zip(SPLITS, (train, validation, test), strict=True))
    home: dict[str, str] = {}
    for split, part in splits.items():
        for e in part:
            if e["id"] in home:
                raise UserError(
                    f"id {e['id']!r} stands twice, in {home[e['id']]} and {split}; ids must be unique."
                )
            home[e["id"]] = split
            _check_encodable(e)
    contexts = {split: {e["context"] for e in part} for split, part in splits.items()}
    about = {
        "repaired": 0,
        "dropped": 0,
        "notes": [],
        **about,
        "seed": seed,
        "validation_share": share,
        "validation_by": unit,
        "counts": {name: _counts(part) for name, part in splits.items()},
        "validation_paragraphs_also_in_train": len(contexts["train"] & contexts["validation"]),
        "test_paragraphs_also_in_train": len((contexts["train"] | contexts["validation"]) & contexts["test"]),
        "fingerprint": fingerprint(splits),
    }
    from datasets import Value

    answers = {"text": [Value("string")], "answer_start": [Value("int32")]}
    columns = {name: Value("string") for name in ("id", "title", "context", "question")} | {
        "answers": answers
    }
    write(splits, about, output_dir, columns, skipped)
    return about


def _check_encodable(example: dict) -> None:
    r"""JSON can spell half of a surrogate pair ("\ud83d"), which is no character and cannot be stored."""
    try:
        "".join([example["title"], example["context"], example["question"], example["id"]]).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"id {example['id']!r}: its title, context, question or id has half of a surrogate pair; mend the text."
        ) from None


def _counts(examples: list[dict]) -> dict[str, int]:
    return {
        "questions": len(examples),
        "answerable": sum(bool(e["answers"]["text"]) for e in examples),
        "paragraphs": len({e["context"] for e in examples}),
        "titles": len({e["title"] for e in examples}),
    }


def _notes(read: list[SquadFile]) -> list[str]:
    return [f"{file.path}: {note}" for file in read for note in file.notes][:100]
