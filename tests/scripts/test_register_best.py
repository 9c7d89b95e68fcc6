import mlflow
import pytest

from common import data
from tests import trained
from tests.scripts.conftest import run_script


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(id of a finished run of the experiment "here", its data folder)."""
    folder = tmp_path_factory.mktemp("register")
    with trained.store(folder):
        record = trained.prepare_data(folder)
        examples = data.load(folder / "data")[0]["test"].to_list()
        yield trained.log_run(folder, tiny, record, examples, experiment="here"), folder / "data"


def test_it_says_what_it_did_and_how_to_serve_and_twice_changes_nothing(world, tmp_path):
    run_id, data_dir = world
    flags = ("--experiment_name", "here", "--data_dir", data_dir)
    first = run_script("register_best.py", *flags, cwd=tmp_path)
    assert f"bert-squad-qa version 1, champion: run {run_id}" in first.stdout
    assert "8 test questions are answered as in training." in first.stdout
    serve = "mlflow models serve -m models:/bert-squad-qa@champion --env-manager local"
    assert serve in first.stdout
    assert not first.stderr
    second = run_script("register_best.py", *flags, cwd=tmp_path)
    assert "registered already, as version 1" in second.stdout and serve in second.stdout
    assert len(mlflow.MlflowClient().search_model_versions("name = 'bert-squad-qa'")) == 1
    assert not list(tmp_path.iterdir())

    asked = run_script("ask.py", "Who?", "--context", "Marie Curie shared the prize.", cwd=tmp_path)
    assert "models:/bert-squad-qa@champion" in asked.stdout and not asked.stderr


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--experiment_name", "nowhere"), "'nowhere' holds no finished run"),
        (("--experiment_name", "here", "--data_fingerprint", "xyz"), "fits 0 of the data sets"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(flags, reason, world):
    done = run_script("register_best.py", *flags, check=False)
    assert done.returncode == 2 and reason in done.stderr and done.stderr.startswith("error: ")


def test_help():
    text = run_script("register_best.py", "--help").stdout
    assert "validation F1" in text and "--experiment_name" in text and "squad-qa" in text
