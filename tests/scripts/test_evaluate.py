"""evaluate.py as it is typed."""

import importlib.util
import sys
from types import SimpleNamespace

import mlflow
import pytest

from common.errors import UserError
from common.inference import evaluating, models
from common.paths import ROOT
from tests.scripts.conftest import call_script, run_here, run_script, squad_json
from tests.support import stores, trained
from tests.support.questions import EXAMPLES

sys.path.append(str(ROOT / "scripts"))
# By its file: a well-known library has the same name.
spec = importlib.util.spec_from_file_location("evaluate_script", ROOT / "scripts" / "evaluate.py")
evaluate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(evaluate)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder with test.json, ids of two runs) with their store in force."""
    folder = tmp_path_factory.mktemp("evaluate")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        ids = [
            trained.log_run(folder, tiny, record, EXAMPLES, experiment="evaluate", technique=technique)
            for technique in ("lora", "ia3")
        ]
        yield folder, ids


@pytest.mark.long
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
    run_here("evaluate.py", "--model", ids[0], "--file", folder / "test.json", *flags)
    assert len(mlflow.search_runs(search_all_experiments=True, output_format="list")) == before


def test_the_language_is_that_of_every_question(world, tmp_path, monkeypatch):
    sets = []
    loaded = SimpleNamespace(asked=("question", "context"), task=SimpleNamespace(multi_label=False))

    def stop(_, asked):
        sets.extend(asked)
        raise UserError("far enough")

    monkeypatch.setattr(models, "load", lambda name, pairs, **_: loaded)
    monkeypatch.setattr(evaluating, "evaluate", stop)
    words = ("evaluate.py", "--model", "x", "--file", world[0] / "test.json", "--output_dir", tmp_path)
    monkeypatch.setattr(sys, "argv", [*map(str, words), "--language", "de"])
    with pytest.raises(UserError, match="far enough"):
        evaluate.main()
    assert {example["language"] for example in sets[0].examples} == {"de"}


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--perturb", "noise"), "'noise': choose among typos, case, punctuation, distractor"),
        (("--name", "a", "b"), "--name: give each of the 1 files a name"),
        (("--name", "a/b"), "--name 'a/b': use at most 60 letters"),
        (("--language", "?"), "--language is '?': give a code"),
        (("--output_dir", "/dev/null/x"), "--output_dir /dev/null/x: "),
    ],
)
def test_mistakes_are_one_line(flags, reason, world):
    done = call_script("evaluate.py", "--model", "x", "--file", "y.json", *flags)
    assert done.returncode == 2 and reason in done.stderr.splitlines()[-1]
