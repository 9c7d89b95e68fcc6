"""What the README tells people to type: scripts that exist, flags they take, targets that make has."""

import re
import shlex
import subprocess

import pytest
import yaml

from common.matrix import BEGIN, END, markdown
from common.paths import ROOT
from tests.scripts.conftest import run_script
from tests.techniques import SCRIPTS, TECHNIQUES

README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"python (scripts/[^\n`#|]+)", README)))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_a_script_and_flags_that_it_takes(command):
    script, *arguments = shlex.split(command)
    assert (ROOT / script).is_file()
    known = run_script(script.removeprefix("scripts/"), "--help").stdout
    assert not [flag for flag in arguments if flag.startswith("--") and flag not in known]


def test_every_technique_has_a_row_a_target_and_an_entry_point():
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    commands = [entry["command"] for entry in project["entry_points"].values()]
    for script in SCRIPTS:
        assert f"scripts/{script.name}" in README
        assert any(f"scripts/{script.name} " in command for command in commands)
    for name in project["entry_points"]:
        planned = subprocess.run(
            ["make", "-n", name], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert any(f"scripts/{script.name}" in planned for script in SCRIPTS)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z0-9]+)", README))))
def test_every_target_exists(target):
    subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_files_that_it_links_to_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_table_of_what_works_is_that_of_the_code():
    table = markdown({key: kind.name for key, kind in TECHNIQUES.items()})
    assert README.split(BEGIN + "\n")[1].split(END)[0] == table
