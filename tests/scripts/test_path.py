"""Scripts from a bare shell: another Python, no environment, a user without a name."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.paths import ROOT

ENTRIES = sorted([*(ROOT / "scripts").glob("[!_]*.py"), *(ROOT / "benchmarks").glob("*.py")])
FOREIGN = """\
import runpy, sys
from importlib import metadata
def missing(name):
    raise metadata.PackageNotFoundError(name)
metadata.distribution = missing
sys.argv = sys.argv[1:]
sys.orig_argv = [sys.executable, *sys.argv]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script as by a Python without our packages."""


@pytest.fixture
def project(tmp_path):
    """A folder with `_path.py`, a script that tells what it was given, and room for a `.venv`."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "requirements.txt").write_text("# a list\ntorch==2.13.0\n")
    (tmp_path / "scripts" / "_path.py").write_text((ROOT / "scripts" / "_path.py").read_text())
    (tmp_path / "scripts" / "say.py").write_text(
        "import sys\nimport _path\nprint('ran', sys.argv[1:], sys.stdin.read())\nsys.exit(7)\n"
    )
    return tmp_path


def make_venv(project, body):
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(body)
    python.chmod(0o755)


def run(project, *arguments, **kwargs):
    command = [sys.executable, "-c", FOREIGN, str(project / "scripts" / "say.py"), *arguments]
    return subprocess.run(command, env={}, capture_output=True, text=True, timeout=60, **kwargs)


def test_a_foreign_python_hands_over_to_the_environments(project):
    make_venv(project, f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    done = run(project, "a b", "--c", input="typed")
    assert (done.returncode, done.stdout) == (7, "ran ['a b', '--c'] typed\n"), done.stderr


@pytest.mark.parametrize("body", (None, "not a program", "again"))
def test_where_that_does_not_help_one_line_says_what_to_do(project, body):
    if body == "again":
        # It has no packages either, and is not to be started for ever.
        launcher = project / "launcher.py"
        launcher.write_text(FOREIGN)
        make_venv(project, f'#!/bin/sh\nexec {sys.executable} {launcher} "$@"\n')
    elif body:
        make_venv(project, body)
    done = run(project, input="")
    assert done.returncode == 2 and not done.stdout
    assert re.fullmatch(
        r"error: this Python \(.*\) lacks torch: run `make .venv/.installed` in .*\n", done.stderr
    )


@pytest.mark.parametrize("file", ENTRIES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_old_pythons_get_as_far_as_the_line(file):
    tree = ast.parse(file.read_text(), feature_version=(3, 7))
    modules = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(node.module)
    if "_path" in modules:
        # Python 3.6 has no dataclasses.
        assert "dataclasses" not in modules[: modules.index("_path")]
    else:
        children = ("_until_first_step.py", "_rows_of_checkout.py")
        assert file.name in ("peers.py", "recipe.py", "_path.py", *children)


def test_the_benchmarks_have_the_same_beginning():
    assert (ROOT / "scripts/_path.py").read_text() == (ROOT / "benchmarks/_path.py").read_text()


def as_nobody(command, **env):
    """Run by a user id without a name, who may read everything and write nowhere, in an environment without HOME."""
    keep = "+dac_read_search"
    given = ["setpriv", "--reuid=12345", "--clear-groups", f"--inh-caps={keep}", f"--ambient-caps={keep}"]
    return subprocess.run(
        [*given, *command],
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can take another user id")
@pytest.mark.parametrize("env", ({}, {"HOME": "/"}, {"HOME": "/nonexistent"}))
def test_a_user_without_name_or_home_has_both_before_mlflow_asks(env, tmp_path):
    ask = (
        "import common, getpass, pathlib, os; home = pathlib.Path.home(); (home / '.cache').mkdir(exist_ok=True);"
        "print(getpass.getuser(), home.stat().st_uid, oct(home.stat().st_mode)[-3:]); import mlflow"
    )
    done = as_nobody([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {ask}"], **env)
    assert (done.returncode, done.stdout) == (0, "uid12345 12345 700\n"), done.stderr


def test_a_home_that_can_be_written_stays(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import common, os; print(os.environ['HOME'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()) == tmp_path
