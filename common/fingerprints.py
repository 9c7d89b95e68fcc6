"""What decides a run's result, by content: the code, the technique's method, the weights with their tokenizer.

Whatever is not known to be without effect counts: a new module, or a further file of a checkpoint, changes a run's
fingerprint from the start.
"""

import ast
import enum
import functools
import hashlib
import inspect
import json
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from .config import Technique
from .errors import UserError
from .families import Family
from .files import once, sha256
from .models import Checkpoint

PACKAGE = Path(__file__).parent

TRAINS = "training"
"""The module from which all that trains is imported."""

ONLY_REPORTS = {"cli", "experiments", "mirror", "plots", "recording", "store", "study_curves", "tracking"}
"""Modules that draw, log or parse alone; what only they import does not count either."""

NEVER_LOADED = (
    "*.md",
    ".*",
    "LICENSE*",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.onnx",
    "optimizer.*",
    "rng_state*",
    "scheduler.*",
    "trainer_state.json",
    "training_args.bin",
)
"""Files of a checkpoint's folder that transformers does not read: descriptions, other frameworks' weights, a trainer's state."""


def code(*further: str) -> str:
    """sha256 of every module that what trains imports, at any depth; further: names of modules that are to count too."""
    digest = hashlib.sha256()
    for name, content in sorted(_modules({"__init__", TRAINS, *further}).items()):
        _add(digest, name, content)
    return digest.hexdigest()


def method(technique: Technique, family: Family) -> str:
    """sha256 of a technique's method: the PEFT config that it makes for a family, its script, and the code that the script
    imports. UserError where PEFT refuses the technique's values."""
    try:
        config = technique.peft_config(family)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{technique.name} cannot be set up with these values: {reason}") from None
    digest = hashlib.sha256(json.dumps(config and config.to_dict(), sort_keys=True, default=_plain).encode())
    files, further = _sources(type(technique))
    for name, content in sorted((file.name, file.read_bytes()) for file in files):
        _add(digest, name, content)
    digest.update(code(*further).encode())
    return digest.hexdigest()


def checkpoint(found: Checkpoint) -> str:
    """Fingerprint of the weights, the config and the tokenizer that a checkpoint gives: of a folder the sha256 of its files,
    of a model of the hub the commit that is loaded."""
    folder = Path(found.source)
    content = f"files {_folder(folder)}" if folder.is_dir() else f"commit {found.revision}"
    return f"{content} {found.distil=} {found.one_segment=}"


def _modules(roots: Iterable[str]) -> dict[str, bytes]:
    """Module → its source, of those modules of the package and what they import, at any depth."""
    found, waiting = {}, [name for name in roots if name not in ONLY_REPORTS]
    while waiting:
        name = waiting.pop()
        file = PACKAGE / f"{name}.py"
        if name in found or not file.is_file():
            continue
        found[name] = file.read_bytes()
        waiting += [each for each in _imports(found[name])[0] if each not in ONLY_REPORTS]
    return found


@functools.cache
def _imports(source: bytes) -> tuple[frozenset, frozenset]:
    """(modules of this package, dotted names of others) that a source imports, at any depth."""
    own, others = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if node.level:
                own |= {node.module.split(".")[0]} if node.module else names
            elif node.module == PACKAGE.name:
                own |= names
            elif node.module.startswith(f"{PACKAGE.name}."):
                own.add(node.module.split(".")[1])
            else:
                others |= {node.module, *(f"{node.module}.{name}" for name in names)}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                if first == PACKAGE.name and rest:
                    own.add(rest[0])
                else:
                    others.add(alias.name)
    return frozenset(own), frozenset(others)


def _sources(kind: type) -> tuple[set[Path], set[str]]:
    """(files that declare a technique's class, its parents and what they import of their own folder, modules of this package
    that these import)."""
    files, further = set(), set()
    waiting = []
    for each in kind.__mro__[: kind.__mro__.index(Technique)]:
        try:
            waiting.append(Path(inspect.getfile(each)).resolve())
        except (OSError, TypeError):
            raise UserError(
                f"{kind.__name__} is not declared in a file: its runs could not be told from others; write it into a script."
            ) from None
    while waiting:
        file = waiting.pop()
        if file in files:
            continue
        files.add(file)
        own, others = _imports(file.read_bytes())
        further |= own
        for name in others:
            beside = file.parent.joinpath(*name.split("."))
            waiting += [
                each for each in (beside.with_suffix(".py"), beside / "__init__.py") if each.is_file()
            ]
    return files, further


def _plain(value):
    """A value of a PEFT config as JSON has it."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return value.value if isinstance(value, enum.Enum) else repr(value)


def _folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and not any(fnmatch(file.name, pattern) for pattern in NEVER_LOADED):
            _add(digest, file.name, once(sha256, file).encode())
    return digest.hexdigest()


def _add(digest, name: str, content: bytes) -> None:
    digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
