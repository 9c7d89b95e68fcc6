"""The code that stored models carry: what follows from imports, in its packages, under a name made of its content."""

import pytest

from common.serving import packaging
from common.tasks.table import TASKS


def carried(*modules):
    return {file.relative_to(packaging.PACKAGE).as_posix() for file in packaging.needed_modules(modules)}


def test_a_classifier_carries_no_span_and_no_metric():
    """Packages' empty `__init__.py` count as nothing."""
    names = carried("serving.classification")
    code = [name for name in names if (packaging.PACKAGE / name).read_text().strip()]
    assert not [name for name in names if "extractive_qa" in name or name.startswith("scoring")]
    lines = sum(len((packaging.PACKAGE / name).read_text().splitlines()) for name in code)
    assert (len(code) <= 30, lines <= 4600) == (True, True), (sorted(code), lines)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_what_serves_carries_its_packages_and_nothing_that_trains(task):
    names = carried(task.served)
    assert f"{task.served.replace('.', '/')}.py" in names
    assert {name.rpartition("/")[0] + "/__init__.py" for name in names if "/" in name} <= names
    assert {name.partition("/")[0] for name in names if "/" in name} <= {
        "models",
        "scoring",
        "serving",
        "tasks",
    }
    assert "models/saving.py" not in names and "serving/model_logging.py" not in names


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in which imports stand at all places."""
    root = tmp_path / "suite"
    files = {
        "__init__.py": "",
        "errors.py": "",
        "a/__init__.py": "",
        "a/first.py": "def f():\n    from ..b.second import g\n    return g\n",
        "a/unused.py": "",
        "b/__init__.py": "",
        "b/second.py": "if True:\n    from . import third\n",
        "b/third.py": "try:\n    from ..errors import x\nexcept ImportError:\n    from .inner import fourth\n",
        "b/inner/__init__.py": "from .fifth import y\n",
        "b/inner/fourth.py": "",
        "b/inner/fifth.py": "import os\nfrom os import path\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(packaging, "PACKAGE", root)
    return root


def test_the_place_of_an_import_decides_nothing(package):
    everything = {file.relative_to(package).as_posix() for file in package.rglob("*.py")}
    assert carried("a.first") == everything - {"a/unused.py"}


def test_the_name_of_the_code_follows_its_content_and_its_places(package, tmp_path):
    def name():
        return packaging.name_of(packaging.needed_modules(["a.first"]))

    before = name()
    copy = packaging.copy_of_package(tmp_path, ["a.first"])
    assert copy.name == before and (copy / "b" / "inner" / "fifth.py").is_file()
    (package / "a" / "unused.py").write_text("changed = True\n")
    assert name() == before
    (package / "b" / "inner" / "fifth.py").write_text("changed = True\n")
    assert name() != before
