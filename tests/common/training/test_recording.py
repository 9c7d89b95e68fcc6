"""A run that is logged through its journal, against a real server that is killed and started again."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request

import mlflow
import pytest

from common.errors import UserError
from common.files import write_json
from common.tracking import experiments
from common.tracking.store import configure
from common.training import recording
from common.training.run_folder import STATE
from tests.scripts.conftest import run_script
from tests.support.server import free_port
from tests.support.stores import in_force


class Server:
    """`mlflow server` on a port of its own, in one process group."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5)
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError("the server does not start")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.uri)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        server.start()
        mlflow.set_tracking_uri(server.uri)
        yield server
        mlflow.set_tracking_uri(None)
        server.kill()


def steps(run_id, name="loss"):
    return [(m.step, m.value) for m in mlflow.MlflowClient().get_metric_history(run_id, name)]


@pytest.mark.long
def test_a_server_that_dies_and_comes_back_has_everything_once_and_in_order(
    server, tmp_path, monkeypatch, capsys
):
    """Twice: it comes back while the run lasts; it comes back after the run has ended, for sync.py."""
    monkeypatch.setattr(recording, "PATIENCE", 120.0)
    folder = tmp_path / "out"
    folder.mkdir()
    state, seconds = {"run_fingerprint": "key"}, []
    with recording.recorded(folder, state, "outage", "LoRA", {"technique": "LoRA"}) as run:
        for step in range(60):
            if step == 20:
                server.kill()
            if step == 40:
                server.start()
            began = time.monotonic()
            run.log_metrics({"loss": 1 / (step + 1), "rate": float(step)}, step)
            run.log_text(f"text {step}", f"texts/{step}.txt") if step % 10 == 5 else None
            seconds.append(time.monotonic() - began)
    # Not one call has waited for the server.
    assert max(seconds) < 5 and steps(run.id) == [(step, 1 / (step + 1)) for step in range(60)]
    client = mlflow.MlflowClient()
    assert client.get_run(run.id).info.status == "FINISHED"
    assert {f.path for f in client.list_artifacts(run.id, "texts")} == {
        f"texts/{n}.txt" for n in range(5, 60, 10)
    }
    assert "it answers again" in capsys.readouterr().err

    monkeypatch.setattr(recording, "PATIENCE", 0.5)
    other = tmp_path / "other"
    other.mkdir()
    with (
        pytest.raises(UserError, match=r"Nothing is lost.*scripts/sync.py .*other"),
        recording.recorded(other, state, "outage", "LoRA", {"technique": "LoRA"}) as run,
    ):
        for step in range(30):
            if step == 10:
                server.kill()
            run.log_metrics({"loss": float(step)}, step)
        run.log_params({"r": 16})
    write_json(other / STATE, {"run_fingerprint": "key", "run_id": run.id})
    failed = run_script("sync.py", other, check=False, env={"MLFLOW_HTTP_REQUEST_TIMEOUT": "2"})
    assert failed.returncode == 2 and "Nothing is lost" in failed.stderr and other.exists()
    server.start()
    assert "FINISHED" in run_script("sync.py", other).stdout and not other.exists()
    done = client.get_run(run.id)
    assert steps(run.id) == [(step, float(step)) for step in range(30)]
    assert done.info.status == "FINISHED" and done.data.params == {"r": "16"}
    assert len(client.search_runs([done.info.experiment_id])) == 2


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    with in_force(tmp_path):
        yield tmp_path


def test_an_answer_that_was_lost_leaves_one_of_everything(store, monkeypatch):
    """The store had taken it, but the process was killed before it could note so: everything is sent twice."""
    folder = store / "out"
    folder.mkdir()
    mark, sent = recording.Journal.mark, []
    monkeypatch.setattr(recording.Journal, "mark", lambda self, n: sent.append(n))
    monkeypatch.setattr(recording, "HURRY", 0.0)
    with pytest.raises(KeyboardInterrupt), recording.recorded(folder, {}, "lost", "LoRA", {}) as run:
        run.log_params({"r": 16})
        for step in range(3):
            run.log_metrics({"loss": float(step)}, step)
        run.log_text("once", "note.txt")
        while len(sent) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt
    time.sleep(0.2)
    monkeypatch.setattr(recording.Journal, "mark", mark)
    assert recording.send(folder)[0] == run.id
    assert steps(run.id) == [(step, float(step)) for step in range(3)]
    assert mlflow.artifacts.load_text(f"runs:/{run.id}/note.txt") == "once"
    assert mlflow.get_run(run.id).info.status == "KILLED"


def test_secrets_are_neither_logged_nor_shown(store, monkeypatch, capsys):
    secret = "s3cr3t-w0rd"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    monkeypatch.setenv("HF_TOKEN", secret)
    folder = store / "out"
    folder.mkdir()
    with recording.recorded(folder, {}, "secrets", "LoRA", {"technique": "LoRA"}) as run:
        run.log_params({"r": 16})
    assert mlflow.get_run(run.id).info.status == "FINISHED"
    for file in store.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes(), file
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(f"http://ann:{secret}@127.0.0.1:1")
    with pytest.raises(UserError) as refused:
        experiments.experiment_id("anything")
    assert secret not in str(refused.value) and "ann:***@" in str(refused.value)
    assert secret not in "".join(capsys.readouterr())


@pytest.mark.long
@pytest.mark.parametrize(
    "how",
    ("database deleted", "database replaced", "run deleted"),
)
def test_a_store_that_was_deleted_under_a_run_is_noticed_and_a_new_run_takes_all(
    how, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    database = tmp_path / "mlflow.db"
    uri = f"sqlite:///{database}"
    mlflow.set_tracking_uri(uri)
    configure()
    folder = tmp_path / "out"
    folder.mkdir()
    began = time.monotonic()
    state = {"run_fingerprint": "key"}
    try:
        with (
            pytest.raises(UserError, match=r"is not in it any more: .*delete|replaced") as refused,
            recording.recorded(folder, state, "lost", "my run", {"technique": "LoRA"}) as run,
        ):
            run.log_params({"r": 16})
            run.log_text("early", "early.txt")
            while run.journal.pending():
                time.sleep(0.01)
            if how == "run deleted":
                mlflow.delete_run(run.id)
            else:
                for file in tmp_path.glob("mlflow.db*"):
                    file.unlink()
            if how == "database replaced":
                database.write_bytes(b"")
            for step in range(3):
                run.log_metrics({"loss": float(step)}, step)
        # Waiting would not have helped.
        assert time.monotonic() - began < 25
        assert "--new_run" in str(refused.value) and "Nothing is lost" not in str(refused.value)
        assert "is not in it any more" in capsys.readouterr().err
        if how == "database replaced":
            database.unlink()

        env = {"MLFLOW_TRACKING_URI": uri}
        failed = run_script("sync.py", folder, check=False, env=env)
        assert failed.returncode == 2 and "--new_run" in failed.stderr and folder.exists()
        assert (
            "FINISHED" in run_script("sync.py", "--new_run", folder, env=env).stdout and not folder.exists()
        )
        (new,) = recording_runs(database)
        assert new["run_id"] != run.id and new["name"] == "my run" and new["status"] == "FINISHED"
        assert new["points"] == 3 and new["params"] == {"r": "16"}
        (early,) = tmp_path.glob(f"mlruns/lost/{new['run_id']}/artifacts/early.txt")
        assert early.read_text() == "early"
    finally:
        mlflow.set_tracking_uri(None)


def recording_runs(database):
    """The active runs of a database; read past MLflow, which holds the deleted file open in this process."""
    with sqlite3.connect(database) as held:
        rows = held.execute(
            "SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active'"
        ).fetchall()
        return [
            {
                "run_id": run_id,
                "name": name,
                "status": status,
                "points": held.execute(
                    "SELECT count(*) FROM metrics WHERE run_uuid = ?", (run_id,)
                ).fetchone()[0],
                "params": dict(held.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run_id,))),
            }
            for run_id, name, status in rows
        ]
