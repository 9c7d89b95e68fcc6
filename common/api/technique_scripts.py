"""The technique scripts of the project, loaded by their names: a new technique is a new script."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError
from ..paths import ROOT
from ..training.settings import Technique

_START = "_path"
"""The module that a script imports first, to find this library and the right interpreter; both are there already."""


def techniques() -> dict[str, type[Technique]]:
    """Technique key → its class, such as "lora" → LoRA; the fields of a class are its settings with their defaults."""
    return {key: kind for key, (kind, _) in technique_scripts().items()}


def technique_scripts(folder: Path = ROOT / "scripts") -> dict[str, tuple[type[Technique], Path]]:
    """Technique key → its class and its script, of each `bert_fine_tuning*.py` in a folder."""
    found = {}
    for file in sorted(folder.glob("bert_fine_tuning*.py")):
        for kind in vars(_loaded(file)).values():
            if isinstance(kind, type) and issubclass(kind, Technique) and kind is not Technique:
                found[kind.key] = kind, file
    return found


def technique_of(technique: str | type[Technique]) -> type[Technique]:
    """The class that is meant by a key, in upper or lower case, or by the class itself; UserError lists the keys."""
    if isinstance(technique, type) and issubclass(technique, Technique) and technique is not Technique:
        return technique
    known = techniques()
    found = known.get(technique.lower()) if isinstance(technique, str) else None
    if found is None:
        raise UserError(
            f"{technique!r} is not a technique: choose one of {', '.join(known)}, or give a class of one."
        )
    return found


def _loaded(file: Path) -> types.ModuleType:
    """The module of a script, executed as it is on disk."""
    name = file.stem.replace("-", "_")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses, and the fingerprint of a run, find a class's file through its module.
    sys.modules[name] = module
    with _started():
        spec.loader.exec_module(module)
    return module


@contextmanager
def _started() -> Iterator[None]:
    """Within this block, an empty module in the place of _START, which may replace the process by another one."""
    before = sys.modules.get(_START)
    sys.modules[_START] = before or types.ModuleType(_START)
    try:
        yield
    finally:
        if before is None:
            del sys.modules[_START]
