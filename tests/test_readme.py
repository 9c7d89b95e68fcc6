"""What the README tells people to type: scripts that exist, flags they take, targets that make has."""

import re
import shlex
import subprocess

import pytest
import yaml

from common.paths import ROOT
from common.tasks.support_matrix import BEGIN, END, markdown
from tests.scripts.conftest import run_script
from tests.support.techniques import SCRIPTS, TECHNIQUES

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", README, re.M | re.S)
TYPED = sorted(
    {
        line.split("  #")[0].strip()
        for block in BLOCKS
        for line in block.splitlines()
        if re.match(r"(python|mlflow) ", line)
    }
)
"""What the README has people type that starts a program of the environment."""
ACTIVATE = ". .venv/bin/activate"
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


def typed(line, shell="bash"):
    """Type a line into a shell that knows nothing, in the project's folder."""
    return subprocess.run(
        ["env", "-i", shell, "--noprofile", "--norc", "-c", line],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_activation_is_said_before_the_first_command():
    assert README.index(f"\n{ACTIVATE}\n") < README.index("\npython scripts/")
    said = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ACTIVATE in said


@pytest.mark.skipif(not (ROOT / ".venv/bin/activate").is_file(), reason="the environment lies elsewhere")
@pytest.mark.parametrize("line", TYPED)
def test_a_line_of_the_readme_finds_its_program_in_an_empty_environment(line):
    """Up to its help: what the program does then has tests of its own."""
    program = " ".join(shlex.split(line)[: 3 if line.startswith("mlflow models") else 2])
    done = typed(f"{ACTIVATE} && {program} --help" + (" && command -v uvicorn" if "serve" in line else ""))
    assert done.returncode == 0, done.stderr
    assert not line.startswith("python") or "usage:" in done.stdout.lower()


@pytest.mark.skipif(not (ROOT / ".venv/bin/activate").is_file(), reason="the environment lies elsewhere")
def test_make_starts_programs_in_an_empty_environment():
    done = typed("make -n serve ui page compare")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert len(lines) == 5, done
    for line in lines:
        program = re.sub(r"( serve| ui| scripts/\w+\.py).*", r"\1 --help", line)
        assert (helped := typed(program)).returncode == 0, (line, helped.stderr)
