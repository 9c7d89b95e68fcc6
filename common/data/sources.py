"""The sources that data is prepared from, by the names that the command line has for them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..data_name import check_name
from ..data_name import folder as folder_of
from ..errors import UserError
from ..paths import ROOT
from . import columns, hub_sets, labelled_texts, language, mixing, questions
from .prepared import call
from .record import DataRecord


@dataclass(frozen=True)
class Source:
    """A source, and the settings that belong to it."""

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_TABLES = Source(needed=("train_file",), optional=("test_file", "columns", "on_bad_rows"))

SOURCES = {
    "sample": Source(),
    "sample-texts": Source(),
    "files": Source(_TABLES.needed, (*_TABLES.optional, "format", "language")),
    "hub": Source(
        optional=(
            "dataset",
            "config",
            "revision",
            "train_split",
            "test_split",
            "columns",
            "multi_label",
            "on_bad_rows",
            "language",
        )
    ),
    "saved": Source(needed=("path",), optional=("on_bad_rows", "language")),
    "text": Source(_TABLES.needed, (*_TABLES.optional, "multi_label")),
    "aclimdb": Source(needed=("path",)),
    "mix": Source(needed=("mix",)),
}

DATASETS = (*questions.HUB, *labelled_texts.HUB)
"""Names of the hub's data sets that need no further flag; the first one is the default."""

_FOLDERS = {"qa": "squad_data", "text": "imdb_data"}
"""Kind of data → folder of the project that it is prepared in where nothing else is named."""


def check(source: str, given: dict[str, Any]) -> None:
    """Raise UserError for a setting that belongs to other sources, or one that is missing; it is named as a flag.

    given: the settings by name, as `SOURCES` names them.
    """
    belongs = {name: [key for key, s in SOURCES.items() if name in s.needed + s.optional] for name in _NAMES}
    for name, sources in belongs.items():
        if name in given and source not in sources:
            raise UserError(f"--{name} belongs to --source {' or '.join(sources)}, not to --source {source}.")
        if name not in given and name in SOURCES[source].needed:
            raise UserError(f"--source {source} needs --{name}.")


_NAMES = tuple(dict.fromkeys(name for source in SOURCES.values() for name in source.needed + source.optional))


def prepare(
    source: str,
    given: dict[str, Any],
    output_dir: Path | None = None,
    *,
    seed: int = 42,
    validation_share: float = 0.1,
    name: str = "",
) -> tuple[DataRecord, Path]:
    """Prepare data of any source; its record and the folder.

    given: the source's own settings, as `check` takes them. output_dir: None stands for a folder of the project that is called
    after the data or its kind. name: what the data is called; "": after where it is from.
    """
    check(source, given)
    if name:
        check_name(name)
        output_dir = output_dir or ROOT / folder_of(name, "")
    record, folder = _prepared(source, given, output_dir, seed, validation_share)
    return (call(folder, record, name) if name else record), folder


def _prepared(
    source: str, given: dict[str, Any], output_dir: Path | None, seed: int, validation_share: float
) -> tuple[DataRecord, Path]:
    carved: dict[str, Any] = {"seed": seed, "validation_share": validation_share}
    rules: dict[str, Any] = {"on_bad_rows": given["on_bad_rows"]} if "on_bad_rows" in given else {}
    if "language" in given:
        rules["language"] = language.checked(given["language"])
    dataset = given.get("dataset", DATASETS[0])
    if source == "mix":
        return _mix(given["mix"], output_dir, seed)
    if source == "hub" and (dataset not in DATASETS or set(given) - {"dataset"}):
        return _hub(dataset, given, output_dir, **carved)
    texts = source in ("sample-texts", "text", "aclimdb") or source == "hub" and dataset in labelled_texts.HUB
    # Each module prepares its own kind of data, by functions of the same names.
    module: Any = labelled_texts if texts else questions
    prepare: Callable[..., DataRecord]
    if source in ("sample", "sample-texts"):
        prepare = module.prepare_sample
    elif source in ("files", "text"):
        rules["columns"] = columns.parse(given.get("columns"))
        if "format" in given:
            rules["form"] = given["format"]
        if given.get("multi_label"):
            rules["multi_label"] = True
        prepare = partial(module.prepare_files, given["train_file"], given.get("test_file"))
    elif source == "hub":
        prepare = partial(module.prepare_hub, dataset)
    elif source == "saved":
        prepare = partial(questions.prepare_saved, given["path"])
    else:
        prepare = partial(labelled_texts.prepare_aclimdb, given["path"])
    default = "multi_label_data" if "multi_label" in rules else _FOLDERS["text" if texts else "qa"]
    folder = output_dir or ROOT / default
    return prepare(folder, **carved, **rules), folder


def _hub(
    dataset: str, given: dict[str, Any], output_dir: Path | None, *, seed: int, validation_share: float
) -> tuple[DataRecord, Path]:
    """Prepare any data set of the hub, of questions or of texts, as its columns show."""
    known = {**questions.HUB, **labelled_texts.HUB}
    named = columns.parse(given.get("columns"))
    chosen = {
        name: given[name] for name in ("config", "revision", "train_split", "test_split") if name in given
    }
    on_bad_rows = given.get("on_bad_rows", "error")
    multi_label = bool(given.get("multi_label"))
    # Without a column for labels, all that are left over may be labels.
    shown = {"text": "", **named} if multi_label else named
    with hub_sets.opened(known.get(dataset, dataset), columns=shown, **chosen) as found:
        parts = {split: [file] for split, file in found.splits.items()}
        default = _FOLDERS[found.kind] if dataset in DATASETS else f"{found.name}_data"
        folder = output_dir or ROOT / default
        if found.kind == "qa":
            spoken = language.checked(given["language"]) if "language" in given else None
            source = questions.Source("hub", dataset, found.files, found.about, spoken)
            record = questions.prepare_parts(
                parts, folder, source, seed, validation_share, on_bad_rows, columns=named
            )
        else:
            if "language" in given:
                raise UserError(
                    f"--language is for questions, and {dataset} has labelled texts; leave it out, or name the columns of "
                    "questions by --columns question=...,context=...,answer=..."
                )
            about = labelled_texts.About(
                source="hub",
                name=dataset,
                files=found.files,
                seed=seed,
                validation_share=validation_share,
                multi_label=multi_label,
                skip=on_bad_rows == "skip",
                hub=found.about,
            )
            record = labelled_texts.prepare_parts(parts, folder, about, named)
    return record, folder


def _mix(text: str, output_dir: Path | None, seed: int) -> tuple[DataRecord, Path]:
    parts = mixing.parse(text)
    folder = output_dir or ROOT / "mixed_data"
    return mixing.prepare_mix(parts, folder, seed=seed), folder
