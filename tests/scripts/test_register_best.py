import mlflow
import pytest

from common.data import prepared
from tests.scripts.conftest import call_script, run_script
from tests.support import stores, trained


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(id of a finished run of the experiment "here", its data folder)."""
    folder = tmp_path_factory.mktemp("register")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        yield trained.log_run(folder, tiny, record, examples, experiment="here"), folder / "data"


@pytest.mark.long
def test_it_says_what_it_would_do_and_did_and_how_to_serve(world, tmp_path):
    run_id, data_dir = world
    flags = ("--experiment_name", "here", "--data_dir", data_dir)
    foreseen = call_script("register_best.py", *flags, "--dry_run", "--explain", cwd=tmp_path)
    assert f"Dry run, nothing was written: run {run_id} would be champion." in foreseen.stdout
    assert "it loads in a fresh process without the hub" in foreseen.stdout
    assert (
        "median latency of 20 single requests" in foreseen.stdout and "Size with its base" in foreseen.stdout
    )
    assert not mlflow.MlflowClient().search_model_versions("name = 'bert-squad-qa'")

    first = run_script("register_best.py", *flags, cwd=tmp_path)
    assert f"bert-squad-qa version 1, champion: run {run_id}" in first.stdout
    assert "8 test questions are answered as in training." in first.stdout
    serve = "mlflow models serve -m models:/bert-squad-qa@champion --env-manager local"
    assert serve in first.stdout
    assert not first.stderr
    second = call_script("register_best.py", *flags, cwd=tmp_path)
    assert "registered already, as version 1" in second.stdout and serve in second.stdout
    assert len(mlflow.MlflowClient().search_model_versions("name = 'bert-squad-qa'")) == 1
    back = call_script("register_best.py", "--rollback")
    assert back.returncode == 2 and "no earlier champion than version 1" in back.stderr
    assert not list(tmp_path.iterdir())

    asked = run_script("ask.py", "Who?", "--context", "Marie Curie shared the prize.", cwd=tmp_path)
    assert "models:/bert-squad-qa@champion" in asked.stdout and not asked.stderr


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--experiment_name", "nowhere"), "'nowhere' holds no finished run"),
        (("--experiment_name", "here", "--data_fingerprint", "xyz"), "fits 0 of the data sets"),
        (
            ("--experiment_name", "here", "--confidence", "95"),
            "--confidence is 95.0: it must be above 0 and below 1",
        ),
        (("--name", "other"), "give it with --rollback"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(flags, reason, world):
    done = call_script("register_best.py", *flags)
    assert done.returncode == 2 and reason in done.stderr and done.stderr.startswith("error: ")


def test_help():
    text = call_script("register_best.py", "--help").stdout
    assert "validation F1" in text and "squad-qa" in text and "paired bootstrap" in text
    for flag in (
        "--experiment_name",
        "--dry_run",
        "--explain",
        "--rollback",
        "--cheaper_latency",
        "--max_slice_loss",
    ):
        assert flag in text
