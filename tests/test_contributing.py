"""The recipes of CONTRIBUTING.md, followed in a copy of the project: each block is written, applied or typed as it stands there."""

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from common.paths import ROOT
from tests.conftest import make_config
from tests.scripts.conftest import SMALL
from tests.scripts.conftest import prepared as prepared
from tests.scripts.conftest import store as store
from tests.support.tokenizers import make_tokenizer

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)


def recipe(title: str) -> list[tuple[str, str, str]]:
    """(language, file, text) of the blocks of a section; the file is the one that was named last before it."""
    (section,) = re.findall(rf"^## {title}$(.*?)(?=^## )", PAGE, re.M | re.S)
    steps, file, end = [], "", 0
    for block in BLOCK.finditer(section):
        named = re.findall(r"`([\w./-]+\.py)`", section[end : block.start()])
        file = named[-1] if named else file
        steps.append((block[2], file, textwrap.dedent(block[3])))
        end = block.end()
    return steps


def apply(file: Path, diff: str) -> None:
    """Change the lines that a diff without line numbers shows, wherever they stand."""
    lines = [line for line in diff.splitlines() if line.strip()]
    before, after = ([line[1:].strip() for line in lines if line[0] != sign] for sign in "+-")
    assert before != after
    text = file.read_text()
    pattern = r"\s*\n\s*".join(map(re.escape, before))
    found = list(re.finditer(rf"^( *){pattern}$", text, re.M))
    assert len(found) == 1, (file, before)
    # As deep as the lines that are there.
    width = min(len(line[1:]) - len(line[1:].lstrip()) for line in lines)
    new = [f"{found[0][1]}{line[1:][width:]}" for line in lines if line[0] != "-"]
    file.write_text(text[: found[0].start()] + "\n".join(new) + text[found[0].end() :])


@pytest.fixture
def project(tmp_path):
    """A copy of the project's files, with the environment of the tests."""
    folder = tmp_path / "project"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def typed(project: Path, line: str, *more) -> str:
    """What a typed line prints."""
    words = shlex.split(line.split("  #")[0])
    start = {"python": [sys.executable], ".venv/bin/pytest": [sys.executable, "-m", "pytest"]}[words[0]]
    done = subprocess.run(
        [*start, *words[1:], *map(str, more)], cwd=project, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (line, done.stdout[-4000:], done.stderr[-4000:])
    return done.stdout


def follow(project: Path, title: str, checkpoint: str, data: Path) -> dict[str, str]:
    """Every step of a recipe; gives typed line → what it printed. Training is on a tiny checkpoint."""
    printed = {}
    for language, file, text in recipe(title):
        if language == "python":
            (project / file).parent.mkdir(exist_ok=True)
            (project / file).write_text(text)
        elif language == "diff":
            apply(project / file, text)
        else:
            for line in text.splitlines():
                more = (
                    ("--model_checkpoint", checkpoint, "--data_dir", data, *SMALL)
                    if "--model_checkpoint" in line
                    else ()
                )
                printed[line] = typed(project, line, *more)
    return printed


@pytest.mark.long
def test_a_technique_is_in_the_matrix_and_trains(project, tiny, prepared, store):
    steps = recipe("Add a technique")
    assert [language for language, _, _ in steps] == ["python", "", "diff", "diff", ""]
    printed = follow(project, "Add a technique", tiny("bert"), prepared[0])
    (matrix,) = (text for line, text in printed.items() if line.endswith("matrix.py"))
    assert re.search(r"^Techniques:[^.]*\bHRA\b", matrix, re.M)
    assert re.search(r"^\| gpt2 \| EG \| all but .*\bLoHa \[", matrix, re.M)
    assert any("HRA on" in text and "F1" in text for text in printed.values())
    assert any(re.search(r"\d+ passed", text) for text in printed.values())
    written = (project / "docs/MODELS.md").read_text()
    assert re.search(r"^\| gpt2 \|.*\bHRA \[", written, re.M)


@pytest.mark.long
def test_a_family_passes_the_generated_tests_and_trains(project, tmp_path, prepared, store):
    import transformers

    tokenizer = make_tokenizer("ernie")
    config = make_config("bert", tokenizer).to_dict() | {"model_type": "ernie"}
    model = transformers.ErnieForQuestionAnswering(transformers.ErnieConfig(**config))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "ernie")
    printed = follow(project, "Add a family", tmp_path / "ernie", prepared[0])
    assert "| ernie | CEM |" in (project / "docs/MODELS.md").read_text()
    assert any("LoRA on" in text and "F1" in text for text in printed.values())
    (tests,) = (text for line, text in printed.items() if "pytest" in line)
    assert int(re.search(r"(\d+) passed", tests)[1]) > 40


@pytest.mark.long
def test_a_task_trains_and_has_a_champion(project, tiny, store):
    import mlflow

    printed = follow(project, "Add a task", tiny("bert"), project / "topics_data")
    assert any("LoRA on" in text and "accuracy" in text for text in printed.values())
    assert "T: topics" in (project / "docs/MODELS.md").read_text()
    assert mlflow.MlflowClient().get_model_version_by_alias("topics", "champion").version


def test_commands_of_the_page_exist():
    for target in re.findall(r"^make (\w+)", PAGE, re.M):
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)
    for path in re.findall(r"\.venv/bin/pytest .* (tests/[\w./]+)", PAGE):
        assert (ROOT / path).exists(), path
