"""What import-linter's contracts in pyproject.toml cannot say of the house; they themselves run in `make quality`."""

import ast
import subprocess

from common.paths import ROOT
from tests.support.covered import COVERED_BY

MODULES = sorted(file for file in (ROOT / "common").rglob("*.py") if file.stat().st_size)
MLFLOW = {"tracking", "serving", "registry", "page/catalogue.py"}
"""Where MLflow may be imported."""
LONGEST = 400
TESTS = ROOT / "tests"
AIMS = {
    "api/test_python_page.py",
    "export/test_networks.py",
    "models/test_checkpoints.py",
    "page/test_app_refusals.py",
    "registry/test_transfer_again.py",
    "studies/test_shipped.py",
    "test_fuzz.py",
    "test_settings.py",
    "test_stored_models.py",
    "training/test_knobs.py",
    "training/test_survival.py",
}
"""Test files below tests/common/ that are about no single module, or about a part of a large one."""


def test_there_are_modules():
    assert len(MODULES) > 80


def test_each_module_has_its_tests():
    """tests/common/<package>/test_<module>.py, or a line in tests/support/covered.py."""
    modules = {file.relative_to(ROOT / "common") for file in MODULES if file.name != "__init__.py"}
    own = {
        module for module in modules if (TESTS / "common" / module.parent / f"test_{module.name}").is_file()
    }
    assert len(own) > 50
    named = {module.as_posix() for module in modules - own}
    lacking, stale = sorted(named - COVERED_BY.keys()), sorted(COVERED_BY.keys() - named)
    assert not lacking, (
        f"without a test file, and not named in tests/support/covered.py: {', '.join(lacking)}"
    )
    assert not stale, f"lines to be removed, the module is gone or has its own test file: {', '.join(stale)}"
    gone = sorted({file for file in COVERED_BY.values() if not (TESTS / file).is_file()})
    assert not gone, f"test files that tests/support/covered.py names, and that are gone: {', '.join(gone)}"


def test_each_test_file_has_its_module():
    """A module that is renamed takes its tests along; those about several modules are in AIMS."""
    found = list((TESTS / "common").rglob("test_*.py"))
    assert len(found) > 50
    names = [file.relative_to(TESTS / "common") for file in found]
    strays = {
        name.as_posix()
        for name in names
        if not (ROOT / "common" / name.parent / name.name.removeprefix("test_")).is_file()
    }
    assert strays == AIMS, f"in one of them only: {', '.join(sorted(strays ^ AIMS))}"


def test_imports_within_the_library_are_relative():
    """A stored model carries a copy of the modules that it needs, under a name of its own."""
    absolute = []
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            absolute += [file.name for name in names if name.partition(".")[0] in ("common", "scripts")]
    assert not absolute


def test_only_what_talks_to_mlflow_imports_it():
    found = set()
    for file in MODULES:
        name = file.relative_to(ROOT / "common").as_posix()
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(each.partition(".")[0] == "mlflow" for each in names):
                found.add(name if name in MLFLOW else name.partition("/")[0])
    assert found == MLFLOW


def test_no_file_is_longer_than_one_reads():
    # Not the code of stored models, which stays as it was.
    tests = [file for file in TESTS.rglob("*.py") if TESTS / "stored_models" not in file.parents]
    assert len(tests) > 150
    long = {file.name: n for file in MODULES + tests if (n := len(file.read_text().splitlines())) > LONGEST}
    assert not long


def test_scripts_are_thin():
    """Arguments in, one call, text out."""
    lines = {file.name: len(file.read_text().splitlines()) for file in (ROOT / "scripts").glob("*.py")}
    assert len(lines) > 15 and not {name: n for name, n in lines.items() if n > 150}


def test_committed_files_are_small():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    assert not [
        name for name in listed if name and (ROOT / name).is_file() and (ROOT / name).stat().st_size > 10**6
    ]
