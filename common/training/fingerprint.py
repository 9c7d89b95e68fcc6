"""Everything that decides a run's result, by content: the code, the technique's method, the weights with their tokenizer.

Everything counts that is not known to have no effect: a new module, or another file of a checkpoint, changes a run's
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

from ..errors import UserError
from ..files import once, sha256
from ..models import methods
from ..models.base import Checkpoint
from ..models.families import Family
from .refusals import method_of
from .settings import Technique

PACKAGE = Path(__file__).resolve().parent.parent

DECIDE = ("models", "scoring", "tasks", "training")
"""Packages whose modules all count, as do the modules outside of packages. The other packages read data, which counts by its
content, or draw, log, serve and compare trained models."""

OF_HUB = "commit "
"""What the fingerprint of a checkpoint of the hub begins with."""

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
    """sha256 of the modules that decide a result; further: names of packages that count too."""
    return _digest(file for files in _packages(further).values() for file in files)


def of_technique(technique: Technique, family: Family) -> dict[str, str]:
    """The sha256 of what a technique makes for a family, of its script with what that imports from its folder, and of each
    package of code that decides the result; "code.modules": those outside of packages. UserError where PEFT refuses the
    technique's values."""
    files, further = _sources(type(technique))
    return {
        "method": hashlib.sha256(_fields(technique, family)).hexdigest(),
        "script": _digest(files, named=True),
        **{f"code.{name}": _digest(found) for name, found in _packages(further).items()},
    }


def _packages(further: Iterable[str]) -> dict[str, list[Path]]:
    """The modules that decide a result, by their package; "modules": those outside of packages."""
    folders = [PACKAGE / name for name in sorted({*DECIDE, *further})]
    if lacking := [folder.name for folder in folders if not folder.is_dir()]:
        raise FileNotFoundError(f"{PACKAGE} has no package {lacking[0]}")
    return {"modules": [*PACKAGE.glob("*.py")]} | {each.name: [*each.rglob("*.py")] for each in folders}


def _digest(files: Iterable[Path], named: bool = False) -> str:
    """named: wherever the files lie, their names count alone."""
    digest = hashlib.sha256()
    names = ((file.name if named else file.relative_to(PACKAGE).as_posix(), file) for file in files)
    for name, content in sorted((name, file.read_bytes()) for name, file in names):
        _add(digest, name, content)
    return digest.hexdigest()


def _fields(technique: Technique, family: Family) -> bytes:
    config = method_of(technique, family)
    fields = methods.described(config) if isinstance(config, methods.Method) else config and config.to_dict()
    return json.dumps(fields, sort_keys=True, default=_plain).encode()


def checkpoint(found: Checkpoint) -> str:
    """Fingerprint of a checkpoint's weights, config and tokenizer: for a folder the sha256 of its files, for a model of the
    hub the commit that is loaded."""
    folder = Path(found.source)
    content = f"files {_folder(folder)}" if folder.is_dir() else f"{OF_HUB}{found.revision}"
    return f"{content} {found.distil=} {found.one_segment=}"


@functools.cache
def _imports(source: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """(packages of this library, dotted names of all modules) that a source imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            module = str(node.module)
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    own = {name.split(".")[1] for name in names if name.startswith(f"{PACKAGE.name}.")}
    return frozenset(each for each in own if (PACKAGE / each).is_dir()), frozenset(names)


def _sources(kind: type) -> tuple[set[Path], set[str]]:
    """(files that declare a technique's class and its parents, with the files that they import from their own folder; packages
    of this library that these import)."""
    files: set[Path] = set()
    further: set[str] = set()
    waiting = []
    for each in kind.__mro__[: kind.__mro__.index(Technique)]:
        try:
            waiting.append(Path(inspect.getfile(each)).resolve())
        except (OSError, TypeError):
            raise UserError(
                f"{kind.__name__} is not declared in a file, so its runs could not be distinguished from others; write it into a "
                "script."
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


def _plain(value: object) -> object:
    """A value of a PEFT config in a form that JSON can hold."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return value.value if isinstance(value, enum.Enum) else repr(value)


def _folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and not any(fnmatch(file.name, pattern) for pattern in NEVER_LOADED):
            _add(digest, file.name, once(sha256, file).encode())
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", name: str, content: bytes) -> None:
    digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
