"""The model's inputs of the training part: made by all cores, kept on disk where they are many, read as they are needed.

A question costs 10 KB as Python objects. As an Arrow file that is mapped into memory it costs none, and a second run on the
same data finds the file.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock

from ..atomic import atomic_write
from ..data.rows import Rows
from ..errors import UserError, first_line
from ..serving.runtime import cores
from ..tasks.interface import Example, Task
from . import fingerprint
from .planning import Plan
from .settings import DATA, RunArgs

MANY = 20_000
"""Examples from which on their inputs are made by several processes and kept on disk."""

KEPT = 4
"""Data sets whose inputs are kept on disk; those that were used last."""

AT_ONCE = 1_000

_TYPES = {"token_type_ids": np.dtype(np.int8)}
"""Type in which integers of an item are stored; others are int32."""

_AFTERWARDS = ("n_best", "max_validation_samples", "max_test_samples")
"""Settings of the data that do not decide the inputs of training."""

_LENGTH, _EXAMPLE = "length", "example_index"
"""Columns beside those of the items."""


class StoredFeatures(torch.utils.data.Dataset):
    """Inputs of a model in Arrow's columns; its items are those of the features that it was made of, value by value.

    lengths: (W,) tokens of each. example_index: (W,) the example of each.
    """

    def __init__(self, table: pa.Table):
        self._bounds = np.cumsum([0, *(len(chunk) for chunk in table.column(0).chunks)])
        self._chunks = {
            name: [_Chunk(chunk) for chunk in table.column(name).chunks]
            for name in table.column_names
            if name not in (_LENGTH, _EXAMPLE)
        }
        # Small beside the items: copied, so that batches are ordered without a page fault for each.
        self.lengths = table.column(_LENGTH).to_numpy()
        self.example_index = table.column(_EXAMPLE).to_numpy()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        chunk = int(np.searchsorted(self._bounds, i, side="right")) - 1
        row = i - int(self._bounds[chunk])
        return {name: chunks[chunk][row] for name, chunks in self._chunks.items()}


class _Chunk:
    """A part of a column of lists or numbers, read where it lies; integers are int64 again when they are asked for."""

    def __init__(self, chunk: pa.Array):
        self._offsets = chunk.offsets.to_numpy() if pa.types.is_list(chunk.type) else None
        self._values = (chunk if self._offsets is None else chunk.values).to_numpy(zero_copy_only=True)
        self._type = np.int64 if self._values.dtype.kind == "i" else self._values.dtype

    def __getitem__(self, i: int) -> Any:
        where = i if self._offsets is None else slice(self._offsets[i], self._offsets[i + 1])
        return self._values[where].astype(self._type)


def training_features(planned: Plan, tokenizer: Any, config: Any, rows: Rows) -> StoredFeatures:
    """The inputs of those windows of the rows that are trained on. tokenizer, config: the model's.

    UserError where there are none, or the disk has no room.
    """
    make = partial(
        _table,
        task=planned.task,
        tokenizer=tokenizer,
        config=config,
        args=planned.args,
        version=planned.record.version,
    )
    folder = _folder(planned) if len(rows) >= MANY else None
    begins = range(0, len(rows), AT_ONCE)
    tables = (table for begin in begins if len(table := make(rows[begin : begin + AT_ONCE], begin)))
    if folder is None:
        made = list(tables)
        if not made:
            raise _nothing(planned)
        return StoredFeatures(pa.concat_tables(made))
    was_there = False
    try:
        # A run that starts meanwhile waits, and finds the files.
        with FileLock(folder.with_suffix(".lock")):
            # The run that was waited for may have removed it.
            folder.mkdir(exist_ok=True)
            was_there = any(folder.glob("*.arrow"))
            try:
                schema = _schema(folder / "schema", tables)
                if schema is None:
                    raise _nothing(planned)
                return _mapped(folder, rows, partial(_in_process, make=make, schema=schema))
            except (OSError, pa.ArrowException):
                # Still locked: what a run that waits writes then must stay.
                shutil.rmtree(folder, ignore_errors=True)
                raise
    except (OSError, pa.ArrowException) as error:
        if was_there:
            # They were damaged.
            return training_features(planned, tokenizer, config, rows)
        raise UserError(
            f"The model's inputs cannot be written to {folder}: {first_line(error)} Make room, or let the environment variable "
            "HF_DATASETS_CACHE name another folder."
        ) from None


def _nothing(planned: Plan) -> UserError:
    return UserError(f"{planned.args.data_dir} has nothing to train on; prepare it again.")


def _schema(file: Path, tables: Iterator[pa.Table]) -> pa.Schema | None:
    """The schema that the file holds, or that of the first table, which is written there; None if there is none."""
    if file.is_file():
        return pa.ipc.read_schema(pa.py_buffer(file.read_bytes()))
    first = next(tables, None)
    if first is None:
        return None
    with atomic_write(file) as part:
        part.write_bytes(first.schema.serialize().to_pybytes())
    return first.schema


def _mapped(folder: Path, rows: Rows, make: "partial[pa.Table]") -> StoredFeatures:
    """The inputs in a folder, written there first if it does not hold them; each process writes a file of its own."""
    for left in folder.glob("tmp*"):
        # Of a run that was killed.
        left.unlink()
    processes = cores()
    done = rows.dataset.with_format("arrow").map(
        make,
        batched=True,
        with_indices=True,
        batch_size=AT_ONCE,
        remove_columns=rows.dataset.column_names,
        cache_file_name=str(folder / "features.arrow"),
        load_from_cache_file=True,
        # Of its own it would hash the tokenizer, whose state changes when it is used.
        new_fingerprint=folder.name,
        num_proc=processes if processes > 1 else None,
        desc="tokenizing",
    )
    os.utime(folder)
    _forget(folder.parent)
    return StoredFeatures(done.data.table)


def _in_process(
    table: pa.Table, indices: list[int], make: "partial[pa.Table]", schema: pa.Schema
) -> pa.Table:
    # Each process has one core.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    made = make(table.to_pylist(), indices[0])
    return made if len(made) else schema.empty_table()


def _table(
    examples: Sequence[Example],
    begin: int,
    *,
    task: Task,
    tokenizer: Any,
    config: Any,
    args: RunArgs,
    version: str,
) -> pa.Table:
    """The inputs of examples that follow one another. begin: place of the first one."""
    features = task.trained(task.features(tokenizer, config, examples, args), version)
    items = [features[i] for i in range(len(features))]
    of = getattr(features, "example_index", np.arange(len(features)))
    columns = {_LENGTH: pa.array(features.lengths, pa.int64()), _EXAMPLE: pa.array(begin + of, pa.int64())}
    for name in items[0] if items else ():
        columns[name] = _column(name, [np.asarray(item[name]) for item in items])
    return pa.table(columns)


def _column(name: str, values: Sequence[np.ndarray]) -> pa.Array:
    kind = values[0].dtype
    if kind.kind in "iu":
        kind = _TYPES.get(name, np.dtype(np.int32))
    if not values[0].ndim:
        return pa.array(np.array(values, dtype=kind))
    offsets = np.cumsum([0, *(len(value) for value in values)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(values).astype(kind)))


def _folder(planned: Plan) -> Path | None:
    """Where the inputs of a plan's data lie: by the content of all that decides them. None where nothing can be written."""
    from datasets import config

    settings = {
        field.name: planned.settings[field.name]
        for field in fields(RunArgs)
        if field.metadata["group"] == DATA
        and field.name in planned.settings
        and field.name not in _AFTERWARDS
    }
    content = {
        "settings": settings | {"task": planned.task.name, "version": planned.record.version},
        "seed": planned.args.seed if planned.args.max_train_samples else None,
        "data": planned.record.fingerprint,
        "checkpoint": fingerprint.checkpoint(planned.checkpoint),
        "code": fingerprint.code(),
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    folder = Path(config.HF_DATASETS_CACHE) / "bert-fine-tuning" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def _forget(folder: Path) -> None:
    """Remove what was not used for longest, where there is more than is kept."""
    known = sorted(
        (each for each in folder.iterdir() if each.is_dir()), key=lambda each: -each.stat().st_mtime
    )
    for each in known[KEPT:]:
        shutil.rmtree(each, ignore_errors=True)
