"""Any source → `squad_data/`: a saved DatasetDict with train, validation and test, and a record of what was read.

The splits have the columns of the hub's `squad`: id, title, context, question, answers (text, answer_start).
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from .errors import UserError
from .hub import hub_answers
from .squad_json import SquadFile, read_squad_json

SAMPLE = Path(__file__).resolve().parent / "sample"
RECORD = "record.json"
SPLITS = ("train", "validation", "test")
HUB = {"squad": "rajpurkar/squad", "squad_v2": "rajpurkar/squad_v2"}


def prepare_files(
    train: Path,
    test: Path,
    output_dir: Path,
    *,
    name: str | None = None,
    seed: int = 42,
    validation_share: float = 0.1,
) -> dict:
    """Prepare two official SQuAD JSON files; returns the record. UserError names the file and place of any fault."""
    read = [read_squad_json(train), read_squad_json(test)]
    if read[0].version != read[1].version:
        raise UserError(
            f"{train} is SQuAD {read[0].version} and {test} is {read[1].version}: train and test must be of one version."
        )
    about = {
        "source": "files" if name is None else name,
        "name": name or Path(train).name,
        "version": read[0].version,
        "files": [_file_record(file.path) for file in read],
        "repaired": sum(file.repaired for file in read),
        "dropped": sum(file.dropped for file in read),
        "notes": _notes(read),
    }
    return _prepare(read[0].examples, None, read[1].examples, output_dir, about, seed, validation_share)


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
    from datasets import Dataset
    from huggingface_hub import snapshot_download

    try:
        # By repository, never by load_dataset("squad"), which would take a folder of that name in the working directory.
        folder = Path(
            snapshot_download(
                HUB[dataset],
                repo_type="dataset",
                allow_patterns=["*.parquet"],
                local_files_only=not hub_answers(),
            )
        )
    except Exception as error:
        raise UserError(
            f"The hub's {HUB[dataset]} cannot be had ({type(error).__name__}). Go online, or use --source files or sample."
        ) from None
    parts = {}
    for split in ("train", "validation"):
        files = sorted(folder.rglob(f"{split}-*.parquet"))
        if not files:
            raise UserError(
                f"The hub's {HUB[dataset]} has no {split} file in {folder}; remove that folder and try again."
            )
        parts[split] = (
            files,
            Dataset.from_parquet([str(f) for f in files], cache_dir=str(folder / ".cache")).to_list(),
        )
    about = {
        "source": "hub",
        "name": dataset,
        "version": "v2.0" if dataset == "squad_v2" else "v1.1",
        "files": [_file_record(file) for files, _ in parts.values() for file in files],
    }
    return _prepare(
        parts["train"][1], None, parts["validation"][1], output_dir, about, seed, validation_share
    )


def prepare_saved(path: Path, output_dir: Path, *, seed: int = 42, validation_share: float = 0.1) -> dict:
    """Prepare a folder written by `save_to_disk`: train, validation and test as they are, or train and one other as test."""
    from datasets import DatasetDict, load_from_disk

    if not (Path(path) / "dataset_dict.json").is_file():
        raise UserError(f"--path {path}: no folder written by DatasetDict.save_to_disk.")
    try:
        saved = load_from_disk(str(path))
    except Exception as error:
        raise UserError(f"--path {path} cannot be read: {str(error).splitlines()[0]}") from None
    assert isinstance(saved, DatasetDict)
    if "train" not in saved or not {"validation", "test"} & set(saved):
        raise UserError(f"--path {path} holds {sorted(saved)}: it must hold train, and test or validation.")
    for split, part in saved.items():
        missing = {"id", "context", "question", "answers"} - set(part.column_names)
        if missing:
            raise UserError(f"--path {path}: split {split!r} has no column {sorted(missing)[0]!r}.")
    train, test = saved["train"].to_list(), saved["test" if "test" in saved else "validation"].to_list()
    validation = saved["validation"].to_list() if {"validation", "test"} <= set(saved) else None
    everything = [*train, *test, *(validation or [])]
    for example in everything:
        example.setdefault("title", example["context"])
        for text, start in zip(example["answers"]["text"], example["answers"]["answer_start"], strict=True):
            if not example["context"].startswith(text, start):
                raise UserError(
                    f"--path {path}: id {example['id']!r}: {text!r} does not stand at {start} of its context."
                )
    about = {
        "source": "saved",
        "name": Path(path).name,
        "version": "v1.1" if all(e["answers"]["text"] for e in everything) else "v2.0",
        "files": [_file_record(file) for file in sorted(Path(path).rglob("*.arrow"))],
    }
    return _prepare(train, validation, test, output_dir, about, seed, validation_share)


def load(data_dir: str | Path) -> tuple:
    """(DatasetDict, record) of a prepared folder; UserError if it is missing, incomplete or was changed since."""
    folder = Path(data_dir)
    if not folder.is_dir():
        raise UserError(
            f"--data_dir {folder}: no such folder; make it with scripts/prepare_data.py --output_dir {folder}."
        )
    again = f"prepare it again with scripts/prepare_data.py --output_dir {folder}"
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        stored = record["stored"]
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {RECORD}, so it is not prepared data: for a dataset of your own, "
            f"scripts/prepare_data.py --source saved --path {folder} --output_dir ANOTHER_FOLDER."
        ) from None
    except (ValueError, KeyError):
        raise UserError(f"{folder / RECORD} is damaged; {again}.") from None
    for name, digest in stored.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file} is missing; {again}.")
        if _sha256(file) != digest:
            raise UserError(
                f"{file} was changed after it was prepared, so {RECORD} no longer describes it; {again}."
            )
    from datasets import load_from_disk

    return load_from_disk(str(folder)), record


def ensure(data_dir: str | Path) -> tuple:
    """`load`, after making the folder if there is none: the hub's `squad` if it answers in seconds, else the sample.

    Which one it became is printed, because it decides what the figures mean. Two processes may call it at once.
    """
    folder = Path(data_dir)
    if not folder.exists():
        with _held(folder):
            if not folder.exists():
                online = hub_answers()
                chosen = "the hub's squad" if online else "the packaged sample (the hub cannot be reached)"
                print(
                    f"\n*** {folder} does not exist: preparing {chosen}. ***\n", file=sys.stderr, flush=True
                )
                if online:
                    prepare_hub("squad", folder)
                else:
                    prepare_sample(folder)
    return load(folder)


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


def carve(examples: list[dict], share: float, seed: int) -> tuple[list[dict], list[dict]]:
    """(train, validation): whole articles drawn by the seed until validation has its share of the questions.

    Articles that have a paragraph in common stay together. A single article is carved by paragraph.
    """
    if not 0 < share < 1:
        raise UserError(f"--validation_share is {share}: it must lie between 0 and 1.")
    groups = _groups(examples, "title")
    if len(set(groups)) == 1:
        groups = _groups(examples, "context")
    names = sorted(set(groups))
    if len(names) < 2:
        raise UserError(
            "The training data has a single paragraph; there is nothing to carve a validation part from."
        )
    random.Random(seed).shuffle(names)
    sizes = {name: 0 for name in names}
    for name in groups:
        sizes[name] += 1
    chosen, size = set(), 0
    for name in names[:-1]:
        if size >= share * len(examples):
            break
        # An article that would overshoot by more than it fills is left to train.
        if not chosen or size + sizes[name] <= 1.5 * share * len(examples):
            chosen.add(name)
            size += sizes[name]
    sides = ([], [])
    for example, name in zip(examples, groups, strict=True):
        sides[name in chosen].append(example)
    return sides


def _groups(examples: list[dict], by: str) -> list[str]:
    """For each example the name of its group: its title (or context), joined over contexts in common."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    of_context: dict[str, str] = {}
    for e in examples:
        one, other = find(e[by]), find(of_context.setdefault(e["context"], e[by]))
        leader[max(one, other)] = min(one, other)
    return [find(e[by]) for e in examples]


def _prepare(train, validation, test, output_dir, about, seed, share) -> dict:
    if validation is None:
        train, validation = carve(train, share, seed)
    splits = dict(zip(SPLITS, (train, validation, test), strict=True))
    ids = [e["id"] for part in splits.values() for e in part]
    if len(set(ids)) < len(ids):
        twice = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise UserError(f"id {twice!r} stands twice among train, validation and test; ids must be unique.")
    seen = {e["context"] for part in (train, validation) for e in part}
    about = {
        "repaired": 0,
        "dropped": 0,
        "notes": [],
        **about,
        "seed": seed,
        "validation_share": share,
        "counts": {name: _counts(part) for name, part in splits.items()},
        "test_paragraphs_also_in_train": len(seen & {e["context"] for e in test}),
        "fingerprint": fingerprint(splits),
    }
    _write(splits, about, Path(output_dir))
    return about


def _write(splits: dict[str, list[dict]], record: dict, output_dir: Path) -> None:
    """Write a folder beside the wanted one and rename it: the wanted one is never half there."""
    from datasets import Dataset, DatasetDict, Features, Value, disable_progress_bars

    disable_progress_bars()
    answers = {"text": [Value("string")], "answer_start": [Value("int32")]}
    texts = {name: Value("string") for name in ("id", "title", "context", "question")}
    features = Features({**texts, "answers": answers})
    columns = list(features)
    with _held(output_dir):
        _refuse_strangers(output_dir)
        part = output_dir.with_name(f".{output_dir.name}.{os.getpid()}.part")
        old = output_dir.with_name(f".{output_dir.name}.{os.getpid()}.old")
        try:
            rows = {name: [{c: e[c] for c in columns} for e in part_] for name, part_ in splits.items()}
            DatasetDict(
                {name: Dataset.from_list(r, features=features) for name, r in rows.items()}
            ).save_to_disk(str(part))
            files = sorted(part.rglob("*.arrow"))
            record["stored"] = {str(file.relative_to(part)): _sha256(file) for file in files}
            (part / RECORD).write_text(
                json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            if output_dir.exists():
                output_dir.rename(old)
            part.rename(output_dir)
        except OSError as error:
            raise UserError(f"{output_dir} cannot be written: {error.strerror or error}.") from None
        finally:
            if old.exists() and not output_dir.exists():
                old.rename(output_dir)
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _held(output_dir: Path) -> Iterator[None]:
    """One process at a time makes this folder; a process that holds it already may take it again."""
    try:
        output_dir.absolute().parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output_dir.absolute().with_name(f".{output_dir.name}.lock"), is_singleton=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"{output_dir} cannot be written: {error.strerror or error}.") from None
    try:
        yield
    finally:
        lock.release()


def _refuse_strangers(output_dir: Path) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir} is a file; choose another.")
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / RECORD).is_file():
        raise UserError(
            f"--output_dir {output_dir} holds files that this script did not write; choose another or empty it."
        )


def _counts(examples: list[dict]) -> dict[str, int]:
    return {
        "questions": len(examples),
        "answerable": sum(bool(e["answers"]["text"]) for e in examples),
        "paragraphs": len({e["context"] for e in examples}),
        "titles": len({e["title"] for e in examples}),
    }


def _notes(read: list[SquadFile]) -> list[str]:
    return [f"{file.path}: {note}" for file in read for note in file.notes][:100]


def _file_record(file: Path) -> dict:
    return {"name": Path(file).name, "sha256": _sha256(file), "bytes": Path(file).stat().st_size}


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
