"""A folder of prepared data: written whole or not at all, by one process at a time, with a record that it is verified by."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from ..errors import UserError, first_line
from ..files import sha256
from ..paths import command

RECORD = "record.json"
SKIPPED = "skipped.json"
"""Rows that were left out because of a fault, with the reasons."""

SPLITS = ("train", "validation", "test")


def load(data_dir: str | Path) -> tuple:
    """(DatasetDict, record) of a prepared folder; UserError if it is missing, incomplete or was changed since."""
    folder = Path(data_dir)
    if not folder.is_dir():
        raise UserError(
            f"--data_dir {folder}: no such folder; make it with {command('prepare_data.py')} --output_dir {folder}."
        )
    again = f"prepare it again with {command('prepare_data.py')} --output_dir {folder}"
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        stored = dict(record["stored"])
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {RECORD}, so it is not prepared data: for a dataset of your own, "
            f"{command('prepare_data.py')} --source saved --path {folder} --output_dir ANOTHER_FOLDER."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / RECORD} is damaged; {again}.") from None
    except OSError as error:
        raise UserError(f"{folder / RECORD} cannot be read: {error.strerror}; {again}.") from None
    for name, digest in stored.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file} is missing; {again}.")
        try:
            changed = sha256(file) != digest
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}.") from None
        if changed:
            raise UserError(
                f"{file} was changed after it was prepared, so {RECORD} no longer describes it; {again}."
            )
    from datasets import load_from_disk

    try:
        return load_from_disk(str(folder)), record
    except Exception as error:
        raise UserError(f"{folder} cannot be read: {first_line(error)} To mend it, {again}.") from None


def write(
    splits: dict[str, list[dict]],
    record: dict,
    output_dir: Path,
    features: dict,
    skipped: Sequence[Mapping] = (),
) -> None:
    """Write a folder beside the wanted one and rename it: the wanted one is never half there.

    features: the columns that are kept, as `datasets.Features` takes them. `record` gets the checksums as `stored`.
    skipped: rows that were left out, with their reasons, for SKIPPED.
    """
    from datasets import Dataset, DatasetDict, Features, disable_progress_bars

    disable_progress_bars()
    features = Features(features)
    columns = list(features)
    output_dir = Path(output_dir).resolve()
    with held(output_dir):
        _refuse_strangers(output_dir)
        part, old = _siblings(output_dir)
        try:
            rows = {name: [{c: e[c] for c in columns} for e in part_] for name, part_ in splits.items()}
            DatasetDict(
                {name: Dataset.from_list(r, features=features) for name, r in rows.items()}
            ).save_to_disk(str(part))
            files = sorted(file for file in part.rglob("*") if file.is_file())
            record["stored"] = {file.relative_to(part).as_posix(): sha256(file) for file in files}
            (part / RECORD).write_text(
                json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            if skipped:
                (part / SKIPPED).write_text(
                    json.dumps(list(skipped), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
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
def held(output_dir: Path) -> Iterator[None]:
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
    if has_content(output_dir):
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
            else name.as_posix() in {*SPLITS, RECORD, SKIPPED, "dataset_dict.json"}
        )
        if not known:
            return name.as_posix()
    return None


def has_content(folder: Path) -> bool:
    """Whether anything is there: a file, or a folder that is not empty."""
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
