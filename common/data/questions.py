"""Questions of any source → `squad_data/`: a saved DatasetDict with train, validation and test, and a record of what was read.

The splits have the columns of the hub's `squad`: id, title, context, question, answers (text, answer_start).
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError, first_line
from ..files import file_record
from ..hub import download_parquet, hub_answers
from ..paths import SAMPLE
from . import labelled_texts
from .prepared import SPLITS, has_content, held, load, write
from .squad_json import SquadFile, read_rows, read_squad_json
from .squad_shapes import marked
from .validation_split import carve

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

    Answers that cannot be placed in their context leave train, and stay in validation and test, where they are scored.
    on_bad_rows: "skip" leaves faulty questions out, and writes them with their reasons beside the data (`skipped.json`).
    """
    read = [read_squad_json(file, on_bad_rows) for file in (train, test)]
    if read[0].version != read[1].version:
        raise UserError(
            f"{train} is SQuAD {read[0].version} and {test} is {read[1].version}: train and test must be of one version; "
            'where no question of a file is marked is_impossible, its "version": "v2.0" says that some could be.'
        )
    about = {
        "source": "files" if name is None else name,
        "name": name or Path(train).name,
        "version": read[0].version,
        "files": [file_record(file.path) for file in read],
    }
    return _prepare(read[0], None, read[1], output_dir, about, seed, validation_share)


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
    version = "v2.0" if dataset == "squad_v2" else "v1.1"
    parts = {
        split: read_rows(Path(HUB[dataset]) / split, pyarrow.parquet.read_table(names).to_pylist(), version)
        for split, names in files.items()
    }
    about = {
        "source": "hub",
        "name": dataset,
        "version": version,
        "files": [file_record(file) for names in files.values() for file in names],
    }
    return _prepare(parts["train"], None, parts["validation"], output_dir, about, seed, validation_share)


def _download(dataset: str) -> dict[str, list[Path]]:
    return download_parquet(
        HUB[dataset], ("train", "validation"), online=hub_answers(), instead="use --source files or sample"
    )


def prepare_saved(
    path: Path,
    output_dir: Path,
    *,
    seed: int = 42,
    validation_share: float = 0.1,
    on_bad_rows: str = "error",
) -> dict:
    """Prepare a folder written by `save_to_disk`: train, validation and test as they are, or train and one other as test.

    Its rows are judged as those of files are.
    """
    from datasets import load_from_disk

    if not (Path(path) / "dataset_dict.json").is_file():
        raise UserError(f"--path {path}: no folder written by DatasetDict.save_to_disk.")
    try:
        saved = load_from_disk(str(path))
    except Exception as error:
        raise UserError(f"--path {path} cannot be read: {first_line(error)}") from None
    if "train" not in saved or not {"validation", "test"} & set(saved):
        raise UserError(f"--path {path} holds {sorted(saved)}: it must hold train, and test or validation.")
    rows = {split: saved[split].to_list() for split in SPLITS if split in saved}
    for split in rows:
        missing = {"id", "context", "question", "answers"} - set(saved[split].column_names)
        if missing:
            raise UserError(f"--path {path}: split {split!r} has no column {sorted(missing)[0]!r}.")
    answered = not any(marked(row).get("is_impossible") for part in rows.values() for row in part)
    version = "v1.1" if answered else "v2.0"
    parts = {split: read_rows(Path(path) / split, part, version, on_bad_rows) for split, part in rows.items()}
    about = {
        "source": "saved",
        "name": Path(path).name,
        "version": version,
        "files": [file_record(file) for file in sorted(Path(path).rglob("*.arrow"))],
    }
    validation = parts["validation"] if len(parts) == 3 else None
    test = parts["test" if "test" in parts else "validation"]
    return _prepare(parts["train"], validation, test, output_dir, about, seed, validation_share)


def ensure(data_dir: str | Path, kind: str = "qa") -> tuple:
    """`load`, after making the folder if there is none; kind: "qa" or "text", what it must hold.

    Questions: `squad` from the cache or a hub that answers in seconds, else the sample. Texts: `imdb` likewise. What it became is printed, because it decides what the figures mean. Two processes may
    call it at once.
    """
    folder = Path(data_dir)
    if not has_content(folder):
        with held(folder):
            if not has_content(folder):
                labelled_texts.make(folder) if kind == "text" else _make(folder)
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


def _prepare(
    train: SquadFile,
    validation: SquadFile | None,
    test: SquadFile,
    output_dir: Path,
    about: dict,
    seed: int,
    share: float,
) -> dict:
    read = [part for part in (train, validation, test) if part is not None]
    if not train.placed:
        raise UserError(
            f"{train.path}: no answer in it stands in its context, so there is nothing to train on."
        )
    counts = sum((part.counts for part in read), Counter())
    counts["renamed_ids"] = _part_ids(train, read[1:])
    skipped = [{"file": part.path.name, **fault} for part in read for fault in part.skipped]
    counts["skipped"] = len(skipped)
    about |= {
        "repaired": sum(part.repaired for part in read),
        "dropped": sum(part.dropped for part in read),
        "notes": _notes(read),
        **{name: number for name, number in sorted(counts.items()) if number},
    }
    unit, placed = "given", {e["id"]: e for e in train.placed}
    if validation is None:
        train, validation, unit = carve(train.examples, share, seed)
    else:
        train, validation = train.examples, validation.examples
    train = [placed[e["id"]] for e in train if e["id"] in placed]
    if not train:
        raise UserError("No answer of the questions left for train stands in its context; mend answer_start.")
    splits = dict(zip(SPLITS, (train, validation, test.examples), strict=True))
    home: dict[str, str] = {}
    for split, part in splits.items():
        for e in part:
            if e["id"] in home:
                raise UserError(
                    f"id {e['id']!r} stands twice, in {home[e['id']]} and {split}; ids must be unique."
                )
            home[e["id"]] = split
    contexts = {split: {e["context"] for e in part} for split, part in splits.items()}
    about = {
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


def _part_ids(train: SquadFile, others: list[SquadFile]) -> int:
    """Questions of train that are renamed because another one, in another file, has their id; returns how many.

    Tools number the questions of each file from 0. What is scored keeps its ids, for predictions are found by them. The same
    question in both files keeps its id, and is refused.
    """
    taken = {e["id"]: (e["context"], e["question"]) for part in others for e in part.examples}
    used = {*taken, *(e["id"] for e in train.examples)}
    renamed = {}
    for e in train.examples:
        if e["id"] in taken and taken[e["id"]] != (e["context"], e["question"]):
            new = f"train-{e['id']}"
            while new in used:
                new = f"train-{new}"
            used.add(new)
            renamed[e["id"]] = new
    for e in (*train.examples, *train.placed):
        e["id"] = renamed.get(e["id"], e["id"])
    return len(renamed)


def _counts(examples: list[dict]) -> dict[str, int]:
    return {
        "questions": len(examples),
        "answerable": sum(bool(e["answers"]["text"]) for e in examples),
        "paragraphs": len({e["context"] for e in examples}),
        "titles": len({e["title"] for e in examples}),
    }


def _notes(read: list[SquadFile]) -> list[str]:
    return [f"{file.path}: {note}" for file in read for note in file.notes][:100]
