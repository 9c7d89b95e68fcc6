"""The table in docs/ARCHITECTURE.md is the rule; this walks the imports."""

import ast
import re

import pytest

from common.paths import ROOT

TABLE = {
    match[1]: set(re.findall(r"[a-z_]+", match[2]))
    for match in re.finditer(
        r"^\| `(\w+)\.py` \|[^|]*\|([^|]*)\|$", (ROOT / "docs/ARCHITECTURE.md").read_text(), re.M
    )
}
MODULES = sorted(f for f in (ROOT / "common").glob("*.py") if f.stem != "__init__")


def imports(file):
    """(modules of this package, top-level names of others) that a file imports, at any depth."""
    own, others = set(), set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            own |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
    return own, others


def test_every_module_has_a_row():
    assert {file.stem for file in MODULES} == set(TABLE)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_imports_are_those_of_the_table(file):
    own, others = imports(file)
    assert own <= TABLE[file.stem]
    assert "scripts" not in others
    assert "common" not in others or file.stem == "squad_metric"
    assert "mlflow" not in others or file.stem in {
        "store",
        "experiment_pages",
        "stored_code",
        "tracking",
        "registry",
        "versions",
        "checking",
        "fresh",
        "experiments",
        "onnx_export",
        "promotion",
        "serving",
        "request_guard",
        "answering",
        "classifying",
        "generating",
        "side_by_side",
        "adapters",
        "catalogue",
    }


def test_the_table_has_no_circle():
    done = set()
    while len(done) < len(TABLE):
        free = {module for module, needs in TABLE.items() if module not in done and needs <= done}
        assert free, set(TABLE) - done
        done |= free


def test_committed_files_are_small():
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    assert not [
        name for name in listed if name and (ROOT / name).is_file() and (ROOT / name).stat().st_size > 10**6
    ]
