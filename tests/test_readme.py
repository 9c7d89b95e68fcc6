"""What README and docs/ have people type: scripts that exist, flags they take, targets that make has."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from common.api.exporting import formats_markdown
from common.export import formats
from common.paths import ROOT
from common.tasks.support_matrix import BEGIN, END, PEFT_BEGIN, PEFT_END, markdown, peft_markdown
from tests.support.called import call
from tests.support.pages import PAGES, README, commands, links, prose, typed_lines
from tests.support.techniques import SCRIPTS, TECHNIQUES

ACTIVATE = ". .venv/bin/activate"
COMMANDS: dict[str, list[list[str]]] = {}
"""Script or benchmark → the arguments that a page gives it, each time."""
for page in PAGES:
    for command in commands(page):
        if found := re.match(r"python ((?:scripts|benchmarks)/\S+\.py)(.*)", command):
            COMMANDS.setdefault(found[1], []).append(shlex.split(found[2]))
STARTED = sorted(
    {line for page in PAGES for line in typed_lines(page) if re.match(r"(python|mlflow|torchrun) ", line)}
)
"""What the pages have people type that starts a program of the environment."""
TARGETS = sorted(
    {found[1] for page in PAGES for line in commands(page) if (found := re.match(r"make ([a-z0-9-]+)", line))}
)

LONGEST_LINE, LONGEST_README = 120, 150


def help_of(script: str, *words: str) -> str:
    done = call(ROOT / script, *words, "--help")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pages_are_there():
    assert len(PAGES) > 10 and len(COMMANDS) > 20 and len(STARTED) > 30 and len(TARGETS) > 10


@pytest.mark.parametrize("script", sorted(COMMANDS))
def test_a_command_names_a_script_and_flags_that_it_takes(script):
    known = help_of(script)
    for arguments in COMMANDS[script]:
        # A script's own commands have flags of their own.
        word = arguments[0] if arguments else "-"
        own = [word] if word[0] != "-" and re.search(rf"^ +{re.escape(word)} ", known, re.M) else []
        flags = [argument for argument in arguments if argument.startswith("--")]
        taken = known + (help_of(script, *own) if own and flags else "")
        assert not [flag for flag in flags if not re.search(rf"{flag}(?![\w-])", taken)]


def test_every_technique_has_a_row_a_target_and_an_entry_point():
    project = yaml.safe_load((ROOT / "MLproject").read_text())
    entries = [entry["command"] for entry in project["entry_points"].values()]
    for script in SCRIPTS:
        assert f"scripts/{script.name}" in README
        assert any(f"scripts/{script.name} " in command for command in entries)
    for name in project["entry_points"]:
        planned = subprocess.run(
            ["make", "-n", name], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert any(f"scripts/{script.name}" in planned for script in SCRIPTS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_exists(target):
    subprocess.run(["make", "-n", target, "BACKUP=x"], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_headings_that_it_links_to_exist(page):
    for file, heading in links(page):
        target = page.parent / file if file else page
        assert target.exists(), file
        if heading:
            headings = re.findall(r"^#+ (.*)$", prose(target), re.M)
            assert heading in [
                re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings
            ], heading


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_lines_fit_a_window(page):
    """Rows of tables cannot be broken."""
    lines = page.read_text().splitlines()
    assert not [line for line in lines if len(line) > LONGEST_LINE and not line.startswith("|")]


def test_the_readme_is_short_and_leads_everywhere():
    assert len(README.splitlines()) <= LONGEST_README
    linked = {(ROOT / file).resolve() for file, _ in links(ROOT / "README.md")}
    assert not {page.name for page in PAGES if page.name != "README.md"} - {file.name for file in linked}


def test_the_table_of_what_works_is_that_of_the_code():
    table = markdown({key: kind.name for key, kind in TECHNIQUES.items()})
    page = (ROOT / "docs/MODELS.md").read_text()
    assert page.split(BEGIN + "\n")[1].split(END)[0] == table
    assert page.split(PEFT_BEGIN + "\n")[1].split(PEFT_END)[0] == peft_markdown()


def test_the_table_of_formats_is_that_of_the_code():
    page = (ROOT / "docs/EXPORT.md").read_text()
    assert page.split(formats.BEGIN + "\n")[1].split(formats.END)[0] == formats_markdown()
    assert "| BitFit |" in page and "no [1]" in page


def typed(line, shell="bash"):
    """Type a line into a shell that knows nothing, in the project's folder."""
    return subprocess.run(
        ["env", "-i", shell, "--noprofile", "--norc", "-c", line],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_activation_stands_before_the_first_command():
    assert README.index(f"\n{ACTIVATE}\n") < README.index("\npython scripts/")
    said = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ACTIVATE in said


def program(line: str) -> str:
    """The part of a line that starts a program: up to its help, for what the program does then has tests of its own."""
    words = shlex.split(line)
    longer = words[1] in ("models", "-m")
    return " ".join(words[: 1 if words[0] == "torchrun" else 3 if longer else 2])


@pytest.mark.long
@pytest.mark.skipif(not (ROOT / ".venv/bin/activate").is_file(), reason="the environment lies elsewhere")
@pytest.mark.parametrize("line", sorted(set(map(program, STARTED))))
def test_a_typed_line_finds_its_program_in_an_empty_environment(line):
    done = typed(f"{ACTIVATE} && {line} --help" + (" && command -v uvicorn" if "serve" in line else ""))
    assert done.returncode == 0, done.stderr
    assert not line.startswith("python") or "usage:" in done.stdout.lower()


def test_make_hands_on_a_path_in_an_empty_environment():
    """Without one Python does not know where it is, and makes no environment."""
    probe = "probe: ; @python3 -c 'import sys; print(sys.executable)'"
    assert typed(f'make -s --eval "{probe}" probe').stdout.strip().startswith("/")


@pytest.mark.long
@pytest.mark.skipif(not (ROOT / ".venv/bin/activate").is_file(), reason="the environment lies elsewhere")
def test_make_starts_programs_in_an_empty_environment():
    # Whatever the age of the environment and of the files that it was made from.
    done = typed("make -n -o .venv/.installed serve ui page compare")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert len(lines) == 5, done
    for line in lines:
        program = re.sub(r"( serve| ui| scripts/\w+\.py).*", r"\1 --help", line)
        assert (helped := typed(program)).returncode == 0, (line, helped.stderr)


SELECTED = """
import json, sys
import pytest

class Kept:
    def pytest_collection_finish(self, session):
        self.ids = sorted(item.nodeid for item in session.items)

found = []
for words in json.loads(sys.argv[1]):
    kept = Kept()
    assert pytest.main([*words, "--collect-only", "-qq", "-n", "0"], plugins=[kept]) == 0, words
    found.append(kept.ids)
print(json.dumps(found))
"""


@pytest.mark.long
def test_what_a_page_says_of_tests_runs_all_that_it_names():
    """A test that carries the marker `long` is left out where the command does not say `-m ""`."""
    typed = [
        re.sub(r"^(\w+=\S+ )?pytest ", "", code)
        for page in PAGES
        for code in commands(page)
        if "pytest" in code
    ]
    words = [shlex.split(line) for line in typed if line.startswith(("tests/", "-m"))]
    assert len(words) > 10
    asked = json.dumps([*words, *([*line, "-m", ""] for line in words)])
    done = subprocess.run([sys.executable, "-c", SELECTED, asked], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for line, ids, every in zip(words, found[: len(words)], found[len(words) :], strict=True):
        assert ids == every, line
