"""What tests of benchmarks share: their modules, and tables of docs/results/ to write over."""

import importlib.util
import shutil

from common.paths import ROOT
from common.reports.result_tables import markdown, read, save


def module(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def copied(folder, name):
    """A table's file from docs/results/, copied into a folder."""
    return shutil.copy(ROOT / "docs" / "results" / f"{name}.json", folder / f"{name}.json")


def written(file, rows):
    """The lines of a table after its rows were replaced."""
    save(file, rows, {"command": "x"})
    return markdown(read(file)).splitlines()[2:]
