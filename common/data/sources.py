"""The sources that data is prepared from, by the names that the command line has for them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import ROOT
from . import labelled_texts, questions
from .record import DataRecord


@dataclass(frozen=True)
class Source:
    """A source, and the settings that belong to it."""

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_FILES = Source(needed=("train_file", "test_file"), optional=("on_bad_rows",))

SOURCES = {
    "sample": Source(),
    "sample-texts": Source(),
    "files": _FILES,
    "hub": Source(optional=("dataset",)),
    "saved": Source(needed=("path",), optional=("on_bad_rows",)),
    "text": _FILES,
    "aclimdb": Source(needed=("path",)),
}

DATASETS = (*questions.HUB, *labelled_texts.HUB)
"""Names of the hub's data sets; the first one is the default."""


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
) -> tuple[DataRecord, Path]:
    """Prepare data of any source; its record and the folder.

    given: the source's own settings, as `check` takes them. output_dir: None stands for squad_data or imdb_data in the project.
    """
    check(source, given)
    dataset = given.get("dataset", DATASETS[0])
    texts = source in ("sample-texts", "text", "aclimdb") or source == "hub" and dataset in labelled_texts.HUB
    # Each module prepares its own kind of data, by functions of the same names.
    module: Any = labelled_texts if texts else questions
    prepare: Callable[..., DataRecord]
    if source in ("sample", "sample-texts"):
        prepare = module.prepare_sample
    elif source in ("files", "text"):
        prepare = partial(module.prepare_files, given["train_file"], given["test_file"])
    elif source == "hub":
        prepare = partial(module.prepare_hub, dataset)
    elif source == "saved":
        prepare = partial(questions.prepare_saved, given["path"])
    else:
        prepare = partial(labelled_texts.prepare_aclimdb, given["path"])
    folder = output_dir or ROOT / ("imdb_data" if texts else "squad_data")
    rules = {"on_bad_rows": given["on_bad_rows"]} if "on_bad_rows" in given else {}
    return prepare(folder, seed=seed, validation_share=validation_share, **rules), folder
