"""A version moved into a real server, whose artifacts pass through it, by the script."""

import os
import signal
import subprocess
import sys

import mlflow
import pandas as pd
import pytest

from common.data import prepared
from common.registry import register
from common.serving import stored_code
from common.tasks.table import TASKS
from tests.scripts.conftest import run_here, run_script
from tests.support import stores, trained
from tests.support.questions import EXAMPLES
from tests.support.server import free_port, wait_for

NAME = TASKS["extractive-qa"].registered
ASKED = pd.DataFrame([{name: e[name] for name in ("question", "context")} for e in EXAMPLES])


@pytest.fixture(scope="module")
def source(tmp_path_factory, tiny):
    """URI of a store with a champion."""
    folder = tmp_path_factory.mktemp("source")
    with stores.in_force(folder) as uri:
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        trained.log_run(folder, tiny, record, examples, experiment="moving")
        with trained.checked_here():
            register.register_best("moving")
        yield uri


@pytest.fixture
def server(tmp_path):
    """URI of an `mlflow server` of its own."""
    port, log = free_port(), tmp_path / "server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    with open(log, "w") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.mark.long
def test_a_champion_moves_into_a_server_and_answers_there(source, server):
    expected = stored_code.load(f"models:/{NAME}@champion").predict(ASKED).to_dict("records")
    flags = (f"models:/{NAME}@champion", "--from", source, "--to", server, "--alias", "champion")
    first = run_script("transfer.py", *flags)
    assert f"models:/{NAME}/1, champion" in first.stdout and "with 2 logged models." in first.stdout
    second = run_here("transfer.py", *flags)
    assert "was there already" in second.stdout and f"models:/{NAME}/1" in second.stdout
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)
    try:
        client = mlflow.MlflowClient()
        version = client.get_model_version_by_alias(NAME, "champion")
        run = client.get_run(version.run_id)
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
        assert run.data.metrics["test_f1"] == 40.0 and run.inputs.dataset_inputs
        for uri in (f"models:/{NAME}@champion", f"runs:/{version.run_id}/model"):
            assert stored_code.load(uri).predict(ASKED).to_dict("records") == expected
    finally:
        mlflow.set_tracking_uri(before)


def test_a_mistake_is_one_line(source, tmp_path):
    target = f"sqlite:///{tmp_path / 'target.db'}"
    done = run_here("transfer.py", "models:/none/1", "--from", source, "--to", target, check=False)
    assert done.returncode == 2 and "none" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "target.db").exists()
