"""Any source → `squad_data/`: a saved DatasetDict with train, validation and test, and a record of what was read.

The splits have the columns of the hub's `squad`: id, title, context, question, answers (text, answer_start).
"""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from .carving import carve
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
    import pyarrow.parquet

    files = _download(dataset)
    parts = {split: pyarrow.parquet.read_table(names).to_pylist() for split, names in files.items()}
    for split, part in parts.items():
        _check(part, f"The hub's {HUB[dataset]}, split {split!r}")
    about = {
        "source": "hub",
        "name": dataset,
        "version": "v2.0" if dataset == "squad_v2" else "v1.1",
        "files": [_file_record(file) for names in files.values() for file in names],
    }
    return _prepare(parts["train"], None, parts["validation"], output_dir, about, seed, validation_share)


def _download(dataset: str) -> dict[str, list[Path]]:
    """The parquet files of train and validation, from the cache or the hub; UserError if they cannot be had."""
    from huggingface_hub import snapshot_download

    online = hub_answers()
    try:
        # By repository, never by load_dataset("squad"), which would take a folder of that name in the working directory.
        folder = snapshot_download(
            HUB[dataset],
            repo_type="dataset",
            allow_patterns=["*.parquet"],
            etag_timeout=5,
            local_files_only=not online,
        )
    except Exception as error:
        reason = (
            type(error).__name__ if online else "the hub cannot be reached and the cache does not hold it"
        )
        raise UserError(
            f"The hub's {HUB[dataset]} cannot be had: {reason}. Go online, or use --source files or sample."
        ) from None
    files = {split: sorted(Path(folder).rglob(f"{split}-*.parquet")) for split in ("train", "validation")}
    for split, names in files.items():
        if not names:
            raise UserError(
                f"The hub's {HUB[dataset]} has no {split} file in {folder}; remove that folder and try again."
            )
    return files


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
        _check(part, f"--path {path}, split {split!r}")
    train, test = parts["train"], parts["test" if "test" in parts else "validation"]
    validation = parts["validation"] if len(parts) == 3 else None
    everything = [e for part in parts.values() for e in part]
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
        stored = dict(record["stored"])
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {RECORD}, so it is not prepared data: for a dataset of your own, "
            f"scripts/prepare_data.py --source saved --path {folder} --output_dir ANOTHER_FOLDER."
        ) from None
    except (ValueError, KeyError, TypeError):
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

    try:
        return load_from_disk(str(folder)), record
    except Exception as error:
        raise UserError(
            f"{folder} cannot be read: {str(error).splitlines()[0]} To mend it, {again}."
        ) from None


def ensure(data_dir: str | Path, kind: str = "qa") -> tuple:
    """`load`, after making the folder if there is none: `squad` from the cache or a hub that answers in seconds, else the sample.

    Which one it became is printed, because it decides what the figures mean. Two processes may call it at once.
    """
    folder = Path(data_dir)
    if not _has_content(folder):
        with _held(folder):
            if not _has_content(folder):
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
    splits, record = load(folder)
    held = record.get("kind", "qa")
    if held != kind:
        raise UserError(f"--data_dir {folder} holds data of the kind {held!r}; this task needs {kind!r}.")
    return splits, record


def _has_content(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


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


def _check(examples: list[dict], where: str) -> None:
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
            placed = [
                bool(text.strip()) and start >= 0 and e["context"].startswith(text, start)
                for text, start in answers
            ]
        except (TypeError, KeyError, ValueError, AttributeError):
            raise UserError(
                f"{place}: answers must be two lists of one length, text and answer_start, not {e['answers']!r}."
            ) from None
        if not all(placed):
            text, start = answers[placed.index(False)]
            raise UserError(f"{place}: {text!r} does not stand at {start} of its context.")


def _prepare(train, validation, test, output_dir, about, seed, share) -> dict:
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
    _write(splits, about, Path(output_dir).resolve())
    return about


def _check_encodable(example: dict) -> None:
    r"""JSON can spell half of a surrogate pair ("\ud83d"), which is no character and cannot be stored."""
    try:
        "".join([example["title"], example["context"], example["question"], example["id"]]).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"id {example['id']!r}: its title, context, question or id has half of a surrogate pair; mend the text."
        ) from None


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
        part, old = _siblings(output_dir)
        try:
            rows = {name: [{c: e[c] for c in columns} for e in part_] for name, part_ in splits.items()}
            DatasetDict(
                {name: Dataset.from_list(r, features=features) for name, r in rows.items()}
            ).save_to_disk(str(part))
            files = sorted(file for file in part.rglob("*") if file.is_file())
            record["stored"] = {file.relative_to(part).as_posix(): _sha256(file) for file in files}
            (part / RECORD).write_text(
                json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            if output_dir.exists():
                output_dir.rename(old)
            part.rename(output_dir)
        except OSError as error:
            raise UserError(f"{output_dir} cannot be written: {error.strerror or error}.") from None
        finally:
            _tidy(output_dir)


def _siblings(output_dir: Path) -> tuple[Path, Path]:
    """What is being written, and what it is about to replace."""
    return tuple(
        output_dir.with_name(f".{output_dir.name}.{state}") for state in ("being-written", "being-replaced")
    )


def _tidy(output_dir: Path) -> None:
    """Put back, or clear away, what this process or one that was killed has left; only while the folder is held."""
    part, old = _siblings(output_dir)
    if old.exists() and not output_dir.exists():
        old.rename(output_dir)
    for folder in (part, old):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _held(output_dir: Path) -> Iterator[None]:
    """One process at a time makes this folder; a process that holds it already may take it again."""
    output_dir = output_dir.resolve()
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output_dir.with_name(f".{output_dir.name}.lock"), is_singleton=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"{output_dir} cannot be written: {error.strerror or error}.") from None
    try:
        _tidy(output_dir)
        yield
    finally:
        lock.release()


def _refuse_strangers(output_dir: Path) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir} is a file; choose another.")
    if _has_content(output_dir):
        strange = _strange(output_dir)
        if strange:
            raise UserError(
                f"--output_dir {output_dir}: this script did not write {strange}; choose another folder or empty it."
            )


def _strange(folder: Path) -> str | None:
    """The first thing in a folder that no preparation writes, or would have written and is not there."""
    if not (folder / RECORD).is_file():
        return "what is in it"
    # A record that was damaged is still ours to replace; one of another kind is not.
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if not isinstance(record, dict) or "fingerprint" not in record:
            return RECORD
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        inside = len(name.parts) == 2 and name.parts[0] in SPLITS
        known = (
            file.suffix == ".arrow" or file.name in {"state.json", "dataset_info.json"}
            if inside
            else name.as_posix() in {*SPLITS, RECORD, "dataset_dict.json"}
        )
        if not known:
            return name.as_posix()
    return None


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
