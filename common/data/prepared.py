"""A folder of prepared data: written whole or not at all, by one process at a time, and verified by its record when read."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..atomic import atomic_write, recover
from ..errors import UserError, first_line
from ..faults import Fault
from ..files import once, sha256
from ..paths import command
from .record import DataRecord, Example

RECORD = "record.json"
SKIPPED = "skipped.json"
"""File with the rows that were left out because of a fault, and the reasons."""

SPLITS = ("train", "validation", "test")

Splits = Mapping[str, Any]
"""A `datasets.DatasetDict`: split → its rows."""


def load(data_dir: str | Path) -> tuple[Splits, DataRecord]:
    """(DatasetDict, record) of a prepared folder; UserError if it is missing, incomplete or was changed."""
    folder = Path(data_dir)
    if not folder.is_dir():
        raise UserError(
            f"--data_dir {folder}: no such folder; make it with {command('prepare_data.py')} --output_dir {folder}."
        )
    again = f"prepare it again with {command('prepare_data.py')} --output_dir {folder}"
    try:
        record = DataRecord.from_json(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {RECORD}, so it is not prepared data: for a dataset of your own, "
            f"{command('prepare_data.py')} --source saved --path {folder} --output_dir ANOTHER_FOLDER."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / RECORD} is damaged; {again}.") from None
    except OSError as error:
        raise UserError(f"{folder / RECORD} cannot be read: {error.strerror}; {again}.") from None
    for name, digest in record.stored.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file} is missing; {again}.")
        try:
            changed = once(sha256, file) != digest
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}.") from None
        if changed:
            raise UserError(
                f"{file} was changed after it was prepared, so {RECORD} does not describe it; {again}."
            )
    from datasets import load_from_disk

    try:
        return load_from_disk(str(folder)), record
    except Exception as error:
        raise UserError(f"{folder} cannot be read: {first_line(error)} To repair it, {again}.") from None


def write(
    splits: Mapping[str, Sequence[Example]],
    record: DataRecord,
    output_dir: Path,
    features: Mapping[str, object],
    skipped: Sequence[Fault] = (),
) -> DataRecord:
    """Write the folder whole or not at all; returns the record with the checksums of its files.

    features: the columns to keep, as `datasets.Features` takes them.
    skipped: rows that were left out, with the reasons; written to SKIPPED.
    """
    from datasets import Dataset, DatasetDict, Features, disable_progress_bars

    disable_progress_bars()
    columns = list(features)
    output_dir = Path(output_dir).resolve()
    with held(output_dir):
        _refuse_strangers(output_dir)
        try:
            rows = {name: [{c: e[c] for c in columns} for e in part_] for name, part_ in splits.items()}
            with atomic_write(output_dir, replace_folder=True) as part:
                DatasetDict(
                    {name: Dataset.from_list(r, features=Features(features)) for name, r in rows.items()}
                ).save_to_disk(str(part))
                files = sorted(file for file in part.rglob("*") if file.is_file())
                stored = {file.relative_to(part).as_posix(): sha256(file) for file in files}
                record = replace(record, stored=stored)
                _write_json(part / RECORD, record.to_json())
                if skipped:
                    _write_json(part / SKIPPED, list(skipped))
        except OSError as error:
            raise UserError(f"{output_dir} cannot be written: {error.strerror or error}.") from None
    return record


def call(output_dir: Path, record: DataRecord, name: str) -> DataRecord:
    """Give prepared data a name, which its experiment and its registered model have too; returns its record."""
    record = replace(record, called=name)
    output_dir = Path(output_dir).resolve()
    with held(output_dir):
        # Beside the folder, in which a killed process must leave no strange file.
        part = output_dir.with_name(f".{output_dir.name}.{RECORD}")
        _write_json(part, record.to_json())
        part.replace(output_dir / RECORD)
    return record


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def held(output_dir: Path) -> Iterator[None]:
    """Let one process at a time write this folder; a process that holds it already may take it again."""
    output_dir = output_dir.resolve()
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output_dir.with_name(f".{output_dir.name}.lock"), is_singleton=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"{output_dir} cannot be written: {error.strerror or error}.") from None
    try:
        recover(output_dir)
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
    """The first name in a folder that no preparation writes; "what is in it" if the record is missing."""
    if not (folder / RECORD).is_file():
        return "what is in it"
    # A damaged record may be replaced; a record of another kind may not.
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
    """Whether there is a file, or a folder that is not empty."""
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
