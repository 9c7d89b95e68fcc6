"""Any data set of the hub: its Parquet, Arrow, CSV or JSON files, from the cache or downloaded, as rows of its splits.

The files are fetched by repository and opened as a folder, so that no script of a repository runs, and no folder of the working
directory that has a data set's name is taken for it.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line
from ..files import FileRecord, file_record
from ..hub import hub_answers
from .columns import Columns, resolve
from .hub_files import not_here

_FILES = [
    f"*.{kind}{end}" for kind in ("parquet", "arrow", "csv", "tsv", "json", "jsonl") for end in ("", ".gz")
]
_CARD = "README.md"


@dataclass(frozen=True)
class HubSet:
    """A data set of the hub, its splits written as files."""

    repository: str
    splits: Mapping[str, Path]
    """train, and perhaps validation and test → a Parquet file with its rows."""
    files: list[FileRecord]
    """The files of the repository that were read."""
    about: Mapping[str, str]
    """`repository`, `config`, `revision`, and the name that each split has there."""
    kind: str
    """"qa" or "text"."""

    @property
    def name(self) -> str:
        """The last part of the repository's name."""
        return self.repository.rstrip("/").rpartition("/")[2]


def is_folder(dataset: str) -> bool:
    """Whether this names a local folder laid out like a repository: a path that begins with ".", "/" or "~"."""
    return dataset.startswith((".", "/", "~"))


@contextlib.contextmanager
def opened(
    dataset: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    columns: Columns | None = None,
) -> Iterator[HubSet]:
    """A data set of the hub by its repository (`owner/name`), or a folder laid out like one; its files are gone afterwards.

    config: one of several sets in the repository. revision: a branch, tag or commit. test_split: default: `test`, else
    `validation`; where both are there, validation is used as such. Splits may be slices: `train[:10%]`. UserError, or NotHere if
    the hub does not answer and the cache does not hold it.
    """
    folder = Path(dataset).expanduser() if is_folder(dataset) else _fetched(dataset, config, revision)
    if not folder.is_dir():
        raise UserError(f"--dataset {dataset}: no such folder.")
    builder = _builder(dataset, folder, config)
    chosen = _chosen(dataset, builder, train_split, test_split)
    about = {"repository": dataset, "config": builder.config.name, **_labelled(chosen)}
    if not is_folder(dataset):
        # The snapshot's folder has the name of its commit.
        about["revision"] = folder.name
    with tempfile.TemporaryDirectory() as scratch:
        splits, kind = {}, ""
        for split, name in chosen.items():
            rows = _rows(dataset, builder, name)
            kind = kind or _kind(dataset, rows.column_names, columns)
            splits[split] = Path(scratch) / f"{split}.parquet"
            rows.to_parquet(splits[split])
        yield HubSet(dataset, splits, _records(builder, folder, chosen), about, kind)


def _labelled(chosen: Mapping[str, str]) -> dict[str, str]:
    return {f"{split}_split": name for split, name in chosen.items()}


def _fetched(dataset: str, config: str | None, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    online = hub_answers()
    where: dict[str, Any] = dict(
        repo_type="dataset", revision=revision, etag_timeout=5, local_files_only=not online
    )
    try:
        folder = Path(snapshot_download(dataset, allow_patterns=[_CARD], **where))
        wanted = _patterns(folder, config)
        return Path(snapshot_download(dataset, allow_patterns=[_CARD, *wanted], **where))
    except Exception as error:
        if online and type(error).__name__ in (
            "RepositoryNotFoundError",
            "RevisionNotFoundError",
            "HFValidationError",
        ):
            raise UserError(
                f"--dataset {dataset}: the hub has no such data set or revision, or it is not open to you; its name is "
                "OWNER/NAME as on the hub's page (a folder is named by a path that begins with ./ or /)."
            ) from None
        raise not_here(dataset, error, online, "use --source files with files of it") from None


def _patterns(folder: Path, config: str | None) -> list[str]:
    """The files to fetch: those that the repository's card names for the config, else all data files."""
    from huggingface_hub import DatasetCard

    card = folder / _CARD
    if not card.is_file():
        return _FILES if config is None else [f"{config}/{pattern}" for pattern in _FILES]
    try:
        configs = DatasetCard.load(card).data.to_dict().get("configs") or []
    except Exception:
        # The builder reads the card too, and says what is wrong with it.
        return _FILES
    named = [each for each in configs if each.get("config_name") == config] if config else configs
    paths = list(_strings(named[0].get("data_files"))) if len(named) == 1 else []
    return paths if paths and not any("{" in path for path in paths) else _FILES


def _strings(value: Any) -> Iterator[str]:
    """The paths in `data_files`: a path, or lists and objects with paths."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each.get("path") if isinstance(each, dict) else each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)


def _builder(dataset: str, folder: Path, config: str | None) -> Any:
    from datasets import disable_progress_bars, load_dataset_builder

    disable_progress_bars()
    how: dict[str, Any] = {"name": config}
    if config is not None and (folder / config).is_dir() and not (folder / _CARD).is_file():
        # As the hub lays out what it converted itself: a folder for each config.
        how = {"data_dir": config}
    try:
        return load_dataset_builder(str(folder), **how)
    except Exception as error:
        raise UserError(
            f"--dataset {dataset}{f' --config {config}' if config else ''} cannot be read: {first_line(error)} Only Parquet, "
            "Arrow, CSV and JSON files are read; data sets that need a script may be had as Parquet with --revision "
            "refs/convert/parquet."
        ) from None


def _chosen(dataset: str, builder: Any, train: str, test: str | None) -> dict[str, str]:
    """train, validation and test → the split's name in the data set."""
    held = list(builder.config.data_files or builder.info.splits or ())
    base = {name: name.partition("[")[0] for name in (train, *((test,) if test else ()))}
    for flag, name in (("train_split", train), ("test_split", test)):
        if name and base[name] not in held:
            raise UserError(
                f"--dataset {dataset} has no split {base[name]!r}; it has {', '.join(held) or 'none'}: --{flag} names one."
            )
    chosen = {"train": train}
    if test is None:
        test = next((name for name in ("test", "validation") if name in held and name != base[train]), None)
    if test is not None:
        chosen["test"] = test
        if "validation" in held and "validation" not in (base[train], test.partition("[")[0]):
            chosen["validation"] = "validation"
    return chosen


def _rows(dataset: str, builder: Any, split: str) -> Any:
    try:
        builder.download_and_prepare()
        return builder.as_dataset(split=split)
    except Exception as error:
        raise UserError(f"--dataset {dataset}, split {split!r} cannot be read: {first_line(error)}") from None


def _kind(dataset: str, column_names: Sequence[str], columns: Columns | None) -> str:
    """Whether the rows are questions or labelled texts, by the columns that are given, or else those that there are."""
    given = set(columns or {})
    if given & {"text", "text_pair", "label"}:
        return "text"
    if given & {"question", "context", "answers"}:
        return "qa"
    if isinstance(resolve(column_names, ("question", "context", "answers")), dict):
        return "qa"
    if isinstance(resolve(column_names, ("text", "label")), dict):
        return "text"
    raise UserError(
        f"--dataset {dataset} has the columns {', '.join(map(repr, column_names))}: it does not show which hold questions or "
        "texts; name them with --columns question=...,context=...,answer=... or --columns text=...,label=..."
    )


def _records(builder: Any, folder: Path, chosen: Mapping[str, str]) -> list[FileRecord]:
    """Records of the files of the chosen splits."""
    names = {name.partition("[")[0] for name in chosen.values()}
    files = [
        Path(str(file))
        for split, files in (builder.config.data_files or {}).items()
        if split in names
        for file in files
    ]
    return [file_record(file) for file in dict.fromkeys(files) if file.is_file()]
