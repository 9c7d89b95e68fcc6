"""evaluate.py as it is typed."""

import mlflow
import pytest

from tests.scripts.conftest import call_script, run_script, squad_json
from tests.support import trained
from tests.support.questions import EXAMPLES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder with test.json, ids of two runs) with their store in force."""
    folder = tmp_path_factory.mktemp("evaluate")
    with trained.store(folder):
        record = trained.prepare_data(folder)
        ids = [
            trained.log_run(folder, tiny, record, EXAMPLES, experiment="evaluate", technique=technique)
            for technique in ("lora", "ia3")
        ]
        yield folder, ids


def test_models_and_data_sets_make_tables_files_and_runs(world, tmp_path):
    folder, ids = world
    (tmp_path / "other.json").write_text(squad_json(EXAMPLES[:5]))
    flags = ("--perturb", "typos,case", "--seed", 3, "--output_dir", tmp_path / "out")
    files = (folder / "test.json", tmp_path / "other.json")
    done = run_script("evaluate.py", "--model", *ids, "--file", *files, "--name", "own", "covid-qa", *flags)
    assert "F1 of each model on each data set" in done.stdout and "What each model loses" in done.stdout
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "evaluation.md",
        "evaluation.csv",
        "slices.csv",
    }
    found = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.evaluation != ''", output_format="list"
    )
    assert {run.data.tags["mlflow.parentRunId"] for run in found} == set(ids)
    for run in found:
        assert {"eval_own_f1", "eval_covid-qa_typos_f1"} <= set(run.data.metrics)
        assert run.data.params["seed"] == "3"


def test_the_log_can_be_left_out(world, tmp_path):
    folder, ids = world
    before = len(mlflow.search_runs(search_all_experiments=True, output_format="list"))
    flags = ("--no_log", "--output_dir", tmp_path)
    run_script("evaluate.py", "--model", ids[0], "--file", folder / "test.json", *flags)
    assert len(mlflow.search_runs(search_all_experiments=True, output_format="list")) == before


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--perturb", "noise"), "'noise': choose among typos, case, punctuation, distractor"),
        (("--name", "a", "b"), "--name: name each of the 1 files"),
    ],
)
def test_mistakes_are_one_line(flags, reason, world):
    done = call_script("evaluate.py", "--model", "x", "--file", "y.json", *flags)
    assert done.returncode == 2 and reason in done.stderr.splitlines()[-1]
