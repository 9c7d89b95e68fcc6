"""The code that a stored model carries: a copy of the modules that answer for it, under a name derived from their content.

Two versions in one process must each answer with their own code. Imports decide what is copied, wherever they stand in a
module; the kind of model decides which modules the search starts from.
"""

import ast
import functools
import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent

LOADER = """\
import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

from mlflow.models import set_model

if "{package}" not in sys.modules:
    folder = Path(*find_spec("{package}").submodule_search_locations)
    digest = hashlib.sha256()
    for name in sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.py")):
        digest.update(name.encode() + b"\\0" + (folder / name).read_bytes())
    if "{package}" != f"suite_{{digest.hexdigest()[:12]}}":
        raise RuntimeError(f"{{folder}} was changed since this model was logged: its code is not run.")

from {package}.models.bundles import check_files
from {package}.{served} import MODEL

FILES = {files}


class Model(MODEL):
    def load_context(self, context):
        check_files(Path(context.artifacts["bundle"]), FILES)
        super().load_context(context)


set_model(Model())
"""
"""What MLflow runs to load a model. FILES: path within the saved model → sha256."""


def copy_of_package(folder: Path, modules: Sequence[str]) -> Path:
    """A copy of the modules (dotted names within the package) and of what they import, as a package named by its content:
    `suite_<sha256, 12 digits>`."""
    files = needed_modules(modules)
    package = folder / name_of(files)
    for file in files:
        copy = package / file.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return package


def name_of(files: Iterable[Path]) -> str:
    """The name of a package of these modules; LOADER computes the same."""
    digest = hashlib.sha256()
    for name in sorted(file.relative_to(PACKAGE).as_posix() for file in files):
        digest.update(name.encode() + b"\0" + (PACKAGE / name).read_bytes())
    return f"suite_{digest.hexdigest()[:12]}"


def needed_modules(modules: Iterable[str]) -> set[Path]:
    """The files of modules (dotted names within the package), of everything that they import from the package at any depth,
    and of the packages that contain them."""
    found: set[Path] = set()
    left = [_module(name) for name in modules]
    while left:
        file = left.pop()
        if file in found:
            continue
        found.add(file)
        if file.name != "__init__.py" or file.parent != PACKAGE:
            outer = file.parent.parent if file.name == "__init__.py" else file.parent
            left.append(outer / "__init__.py")
        left += imported(file)
    return found


def imported(file: Path) -> list[Path]:
    """The files of this package that one of its modules imports, anywhere in its code."""
    found = []
    for level, module, names in _relative_imports(file.read_bytes()):
        inner = file.parent.relative_to(PACKAGE).parts
        place = inner[: len(inner) - level + 1] + module
        # A name is a module, or is defined in one.
        files = [_file(*place, name) or _file(*place) for name in names]
        found += [each for each in files if each is not None]
    return found


@functools.cache
def _relative_imports(source: bytes) -> list[tuple[int, tuple[str, ...], list[str]]]:
    """(level, parts of the module's name, names) of each relative import of a source."""
    return [
        (
            node.level,
            tuple(node.module.split(".") if node.module else ()),
            [alias.name for alias in node.names],
        )
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def _module(name: str) -> Path:
    file = _file(*name.split("."))
    if file is None:
        raise ModuleNotFoundError(f"{PACKAGE.name} has no module {name}", name=name)
    return file


def _file(*names: str) -> Path | None:
    place = PACKAGE.joinpath(*names)
    candidates = [place.with_suffix(".py")] * bool(names) + [place / "__init__.py"]
    return next((file for file in candidates if file.is_file()), None)
