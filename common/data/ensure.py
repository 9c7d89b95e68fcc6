"""Prepared data for a run: what a folder holds, or what is made where it holds nothing."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from ..paths import command
from . import labelled_texts, questions
from .prepared import Splits, has_content, held, load
from .record import DataRecord


class _Default(NamedTuple):
    """What is prepared where a folder holds nothing: a data set of the hub, or else a packaged sample."""

    dataset: str
    download: Callable[[str], object]
    prepare_hub: Callable[[str, Path], DataRecord]
    prepare_sample: Callable[[Path], DataRecord]
    sample: str


_DEFAULTS = {
    "qa": _Default(
        "squad", questions.download, questions.prepare_hub, questions.prepare_sample, "the packaged sample"
    ),
    "text": _Default(
        "imdb",
        labelled_texts.download,
        labelled_texts.prepare_hub,
        labelled_texts.prepare_sample,
        "178 packaged reviews",
    ),
}


def ensure(data_dir: str | Path, kind: str = "qa") -> tuple[Splits, DataRecord]:
    """`load`, after the folder is made if it holds nothing; UserError if it holds data of another kind.

    kind: "qa", for which `squad` is taken, or "text", for which `imdb` is: from the cache or a hub that answers in seconds,
    else a packaged sample. The choice is printed, because it decides what the scores mean. Two processes may call it at once.
    """
    folder = Path(data_dir)
    if not has_content(folder):
        with held(folder):
            if not has_content(folder):
                if kind not in _DEFAULTS:
                    raise UserError(
                        f"--data_dir {folder} holds no data: prepare {kind}s of your own, for example with "
                        f"{command('prepare_data.py')} --source text --multi_label --train_file FILE --test_file FILE."
                    )
                _make(folder, _DEFAULTS[kind])
    splits, record = load(folder)
    if record.kind != kind:
        raise UserError(
            f"--data_dir {folder} holds data of the kind {record.kind!r}; this task needs {kind!r}: name another folder, "
            "or another --task."
        )
    return splits, record


def _make(folder: Path, default: _Default) -> None:
    try:
        default.download(default.dataset)
        hub = True
    except UserError:
        hub = False
    chosen = f"the hub's {default.dataset}"
    if not hub:
        chosen = f"{default.sample} ({chosen} is not available)"
    print(f"\n*** {folder} holds no data: preparing {chosen}. ***\n", file=sys.stderr, flush=True)
    if hub:
        default.prepare_hub(default.dataset, folder)
    else:
        default.prepare_sample(folder)
