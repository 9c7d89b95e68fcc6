"""`scripts/compare.py` as its users call it."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from common.paths import ROOT
from common.reports.result_tables import as_json, markdown, read
from tests.scripts.conftest import call_script
from tests.support.runs import RECORD, log_finished
from tests.support.stores import in_force

OTHER = RECORD | {"name": "squad", "version": "v1.1", "fingerprint": "cd" * 32}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Names → ids of the runs in a store of their own, which the scripts started here see too."""
    with in_force(tmp_path_factory.mktemp("store")), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        rng = np.random.default_rng(0)
        questions = rng.random(40)
        yield {
            "other": log_finished("LoRA", rng.random(40), record=OTHER),
            "older": log_finished("LoRA", questions * 0.5),
            "IA3": log_finished("IA3", questions * 0.8, trainable=3e4),
            "LoRA": log_finished("LoRA", questions, trainable=1e6),
            "smoke": log_finished("Standard", [1.0, 1.0]),
        }


@pytest.fixture
def compare(runs, tmp_path):
    """Runs the script from another directory, within this process."""
    return lambda *arguments: call_script("compare.py", "--output_dir", "out", *arguments, cwd=tmp_path)


@pytest.fixture
def typed(runs, tmp_path):
    """Runs the script from another directory, in a process of its own."""

    def run(*arguments, **environment):
        command = [sys.executable, str(ROOT / "scripts" / "compare.py"), "--output_dir", "out", *arguments]
        env = os.environ | environment
        options = {"capture_output": True, "text": True, "timeout": 120}
        return subprocess.run(command, cwd=tmp_path, env=env, check=False, **options)

    return run


def test_the_latest_runs_on_the_newest_data_are_compared(typed, runs, tmp_path):
    done = typed()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "packaged sample (v2.0), 40 test questions; data abababababab; experiment squad-qa"
    assert lines[3].startswith("LoRA ") and lines[3].endswith("best")
    assert lines[4].startswith("IA3 ")
    assert max(map(len, lines[:9])) <= 100
    assert f"Left out:\n  Standard, run {runs['smoke'][:8]}: tested on 2 other questions" in done.stdout
    assert "squad (v1.1, 1 run): --data_fingerprint cdcdcdcdcdcd" in done.stdout

    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    assert [row["run_id"] for row in rows] == [runs["LoRA"], runs["IA3"]]
    assert (rows[1]["trainable_parameters"], rows[1]["trainable_percent"]) == ("30000", "0.15")
    assert float(rows[1]["f1_difference_low"]) < float(rows[1]["f1_difference"]) < 0
    markdown = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert markdown.startswith("# packaged sample (v2.0), 40 test questions\n\n| technique ")
    assert RECORD["fingerprint"] in markdown
    assert (tmp_path / "out" / "f1_against_parameters.png").read_bytes().startswith(b"\x89PNG")


def test_all_runs(compare, runs, tmp_path):
    assert compare("--all_runs").returncode == 0
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    assert {row["run_id"] for row in rows} == {runs["LoRA"], runs["IA3"], runs["older"]}
    assert {row["label"] for row in rows} == {
        "IA3",
        *(f"LoRA, {runs[name][:6]}" for name in ("LoRA", "older")),
    }


def test_rows_for_a_table_of_the_documentation(compare, runs, tmp_path):
    file, before = tmp_path / "demo.json", read(ROOT / "docs/results/demo.json")
    # What these runs did not measure.
    unknown = ("time", "windows/s", "adapter MiB")
    before["columns"] = [column for column in before["columns"] if column["title"] not in unknown]
    file.write_text(as_json(before))
    assert compare("--json", str(file)).returncode == 0
    found = read(file)
    assert found["columns"] == before["columns"] and found["provenance"] != before["provenance"]
    assert found["provenance"]["command"] == "python scripts/compare.py"
    assert found["provenance"]["runs"] == [runs["LoRA"], runs["IA3"]]
    _, _, best, other = markdown(found).splitlines()
    assert best.startswith("| LoRA | ") and " | best | | " in best and other.startswith("| IA3 | ")
    with (tmp_path / "out" / "comparison.csv").open() as printed:
        scores = [float(row["test_f1"]) for row in csv.DictReader(printed)]
    assert [row["test_f1"] for row in found["rows"]] == pytest.approx(scores)


def test_other_data_is_compared_when_asked_for(compare, runs, tmp_path):
    done = compare("--data_fingerprint", "cdcd")
    assert done.stdout.startswith("squad (v1.1), 40 test questions; data cdcdcdcdcdcd")
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    assert [row["run_id"] for row in rows] == [runs["other"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data_fingerprint", "77"], "--data_fingerprint 77 fits 0 of the data sets"),
        (["--experiment_name", "empty"], "'empty' holds no finished run. There are some in: squad-qa"),
        (
            ["--experiment_name", "given", {"MLFLOW_EXPERIMENT_NAME": "of the environment"}],
            "'given' holds no finished run",
        ),
        ([{"MLFLOW_EXPERIMENT_NAME": "of the environment"}], "'of the environment' holds no finished run"),
        ([{"MLFLOW_EXPERIMENT_ID": "77"}], "MLFLOW_EXPERIMENT_ID is '77'"),
        (["--task", "classification"], "'imdb-sentiment' holds no finished run"),
        (
            ["--task", "classification", "--experiment_name", "squad-qa"],
            "--task classification: the finished runs here are for extractive-qa",
        ),
        (["--output_dir", "/proc/nothing"], "--output_dir /proc/nothing: "),
    ],
)
def test_mistakes_are_explained(compare, monkeypatch, arguments, message):
    environment = arguments.pop() if isinstance(arguments[-1], dict) else {}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = compare(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.long
def test_a_fresh_store_names_what_to_run(typed, tmp_path):
    done = typed(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/fresh.db")
    assert done.returncode == 2
    line = re.search("Train first, for example: (.+)", done.stderr)[1]
    python, script = shlex.split(line)
    assert python == "python" or Path(python).samefile(sys.executable)
    assert Path(script).samefile(ROOT / "scripts" / "bert_fine_tuning_LoRA.py")


def test_starts_without_the_heavy_libraries():
    program = (
        "import runpy, sys; sys.argv = ['compare.py', '--help']\n"
        "try: runpy.run_path(sys.orig_argv[-1], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'mlflow', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(ROOT / "scripts" / "compare.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "scripts")
    assert done.stdout.endswith("[]\n")


@pytest.fixture(scope="module")
def mixed(runs):
    """An experiment with runs for two tasks; the newest is for classification. Made last: other tests list experiments."""
    texts = RECORD | {"name": "imdb", "version": "binary", "fingerprint": "ef" * 32}
    options = {"experiment": "mixed", "record": texts, "task": "classification"}
    questions = log_finished("LoRA", [1.0, 0.5], experiment="mixed", task="extractive-qa")
    worse = log_finished("IA3", [1.0, 0.0, 0.0, 1.0], **options)
    return questions, worse, log_finished("LoRA", [1.0, 0.0, 1.0, 1.0], **options)


def test_labels_are_compared_by_accuracy_and_never_with_answers(compare, mixed, tmp_path):
    done = compare("--experiment_name", "mixed")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "imdb (binary), 4 test texts; data efefefefefef; experiment mixed"
    assert lines[2].split() == "technique accuracy [95%] accuracy - best [95%] p".split()
    assert lines[3].startswith("LoRA ") and "75.0 [" in lines[3] and lines[4].startswith("IA3 ")
    assert "1 run(s) for another task (--task extractive-qa)" in done.stdout
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    assert [row["run_id"] for row in rows] == [mixed[2], mixed[1]]
    assert float(rows[1]["accuracy_difference"]) == -25 and "test_f1" not in rows[0]
    assert (tmp_path / "out" / "accuracy_against_parameters.png").is_file()
    done = compare("--experiment_name", "mixed", "--task", "extractive-qa")
    assert "2 test questions" in done.stdout and "IA3" not in done.stdout


def test_a_results_folder_that_cannot_be_written_costs_no_table(runs, tmp_path):
    """In a project whose `results/` belongs to someone else; a --output_dir that was asked for is another matter."""
    project, store = tmp_path / "project", mlflow.get_tracking_uri()
    project.mkdir()
    (project / "results").mkdir(mode=0o555)
    code = (
        "import pathlib, sys\n"
        f"sys.path[:0] = [{str(ROOT / 'scripts')!r}, {str(ROOT)!r}]\n"
        "import compare\n"
        f"compare.ROOT = pathlib.Path({str(project)!r})\n"
        "sys.exit(compare.guarded(compare.main))"
    )
    command = [sys.executable, "-c", code]
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write everywhere, and nothing here gives that up")
        keep = "--bounding-set=-dac_override"
        command = ["setpriv", "--inh-caps=-dac_override", keep, *command]
    done = subprocess.run(
        command, env=os.environ | {"MLFLOW_TRACKING_URI": store}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "LoRA" in done.stdout and "Written to" not in done.stdout
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("No files are written: ")]
    assert str(project / "results" / "compare") in said and "Permission denied" in said
    assert not list((project / "results").iterdir())
