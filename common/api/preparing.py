"""`prepare`: files, rows or DataFrames become a folder of prepared data."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..tasks.table import DEFAULT_TASK, task_of

if TYPE_CHECKING:
    import pandas as pd


def prepare(
    train: "str | PathLike[str] | pd.DataFrame | Sequence[Mapping[str, Any]]",
    test: "str | PathLike[str] | pd.DataFrame | Sequence[Mapping[str, Any]] | None",
    output_dir: str | PathLike[str],
    *,
    task: str = DEFAULT_TASK,
    seed: int = 42,
    validation_share: float = 0.1,
    on_bad_rows: str = "error",
    columns: Mapping[str, str] | None = None,
    name: str = "",
) -> Path:
    """Prepare data for `fit(..., data_dir=...)`; returns the folder, which is replaced when the new one is complete.

    train, test: files in any format that prepare_data.py reads, DataFrames or lists of rows; test: None carves it out of train.
    columns: field → name of its column, where that is not a usual one: {"question": "q"}. Rows for question answering have
    `question`, `context` and `answers` ({"text": [...], "answer_start": [...]}, empty lists where the text has no answer), and
    may have `id` and `title`; rows for classification have `text` (and `text_pair`) and `label`, a list of labels for
    multi-label classification. Validation is taken out of train. on_bad_rows: "skip" leaves faulty rows out and lists them in
    skipped.json; "error" raises a UserError that names each. name: of the data, which its MLflow experiment and its registered
    model have too; empty: these are called after the task.
    """
    from ..data import labelled_texts, prepared, questions
    from ..data.columns import parse
    from ..data.record import DataRecord
    from ..data_name import check_name

    kind = task_of(task).data
    texts = kind != "qa"
    prepare_files: Callable[..., DataRecord] = questions.prepare_files
    if texts:
        prepare_files = partial(labelled_texts.prepare_files, multi_label=kind != "text")
    if name:
        check_name(name)
    if on_bad_rows not in ("error", "skip"):
        raise UserError(f"on_bad_rows is {on_bad_rows!r}: choose error or skip.")
    if not 0 < validation_share < 1:
        raise UserError(f"validation_share is {validation_share!r}: it must be above 0 and below 1.")
    folder = Path(output_dir)
    with tempfile.TemporaryDirectory() as scratch:
        files = [
            _file(source, Path(scratch) / f"{folder.name}-{part}.{'jsonl' if texts else 'json'}", texts)
            for part, source in (("train", train), ("test", test))
            if source is not None
        ]
        record = prepare_files(
            *(files if test is not None else (*files, None)),
            folder,
            seed=seed,
            validation_share=validation_share,
            on_bad_rows=on_bad_rows,
            columns=None if columns is None else parse(columns),
        )
        if name:
            prepared.call(folder, record, name)
    return folder


def _file(source: Any, file: Path, texts: bool) -> Path:
    """The file that a source is, or the rows of it written to one."""
    if isinstance(source, str | PathLike):
        return Path(source)
    rows = source.to_dict("records") if hasattr(source, "to_dict") else list(source)
    if not rows:
        raise UserError(f"{file.stem} has no rows.")
    lines = [
        json.dumps(
            {name: None if _is_missing(value) else value for name, value in row.items()}, default=_plain
        )
        for row in rows
    ]
    file.write_text("\n".join(lines) if texts else f"[{','.join(lines)}]", encoding="utf-8")
    return file


def _is_missing(value: object) -> bool:
    """Whether it is the NaN that a DataFrame has in place of nothing."""
    return isinstance(value, float) and value != value


def _plain(value: Any) -> Any:
    """A value of NumPy as JSON has it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise UserError(f"a row holds {value!r}, which is not text, a number or a list.")
