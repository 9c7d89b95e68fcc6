"""What a container runs: the verified model, served by the process that the container started. Building the image needs Docker;
the Dockerfile and the manifest are linted here."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml

from common.data import prepared
from common.errors import UserError
from common.paths import ROOT
from common.serving import container, stored_code
from tests.support import stores, tampering, trained
from tests.support.questions import EXAMPLES
from tests.support.server import free_port, post, wait_for

FOLDER = ROOT / "docs" / "serving"


@pytest.fixture(scope="module")
def uri(tmp_path_factory, tiny):
    """The URI of a LoRA run's model, whose base lies in another run."""
    folder = tmp_path_factory.mktemp("container")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        run_id = trained.log_run(folder, tiny, record, examples, experiment="container")
        yield f"runs:/{run_id}/model"


def test_a_model_that_is_kept_needs_no_store(uri, tmp_path):
    kept = tmp_path / "image" / "model"
    container.main([uri, str(kept)])
    assert (kept / "artifacts" / "bundle" / "base").is_dir()
    # The image's user is not the one who built it.
    assert all(path.stat().st_mode & 0o004 for path in kept.rglob("*"))
    rows = pd.DataFrame([{name: e[name] for name in ("question", "context")} for e in EXAMPLES[:3]])
    wanted = mlflow.pyfunc.load_model(uri).predict(rows).to_dict("records")
    store = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        assert mlflow.pyfunc.load_model(str(kept)).predict(rows).to_dict("records") == wanted
    finally:
        mlflow.set_tracking_uri(store)
    with pytest.raises(UserError, match="exists: remove it"):
        container.main([uri, str(kept)])


def test_a_model_that_was_changed_is_not_put_into_an_image(uri, tmp_path):
    file = tampering.folder_of(f"models:/{stored_code.logged_model_of(uri).model_id}") / "requirements.txt"
    content = file.read_bytes()
    try:
        file.write_bytes(content + b"# more\n")
        with pytest.raises(UserError, match="requirements.txt"):
            container.keep(uri, tmp_path / "model")
        assert not (tmp_path / "model").exists()
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "This image holds no model: set MODEL_URI"),
        ({"MODEL_URI": "models:/some@champion"}, "MODEL_URI needs MLFLOW_TRACKING_URI"),
    ],
)
def test_what_is_missing_is_said(environment, reason, tmp_path):
    with pytest.raises(UserError, match=reason):
        container.serve(environment, tmp_path)


def test_a_container_that_starts_again_fetches_the_model_anew(uri, tmp_path, monkeypatch):
    """/tmp may outlive the container, and its first process always has the same number."""
    begun = []
    monkeypatch.setattr(os, "execvpe", lambda *given: begun.append(given))
    environment = {
        "MODEL_URI": uri,
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "TMPDIR": str(tmp_path),
    }
    for _ in range(2):
        container.serve(environment)
    folders = sorted(tmp_path.iterdir())
    assert len(begun) == 2 == len(folders)
    assert all((folder.stat().st_mode & 0o777) == 0o700 for folder in folders)


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_a_number_that_is_none_is_refused(given, tmp_path):
    with pytest.raises(UserError, match=f"WORKERS is '{given}'; it must be a whole number"):
        container.command({"WORKERS": given}, tmp_path)


def test_the_server_is_mlflows(tmp_path):
    line, environment = container.command({"PORT": "81", "WORKERS": "3", "KEPT": "yes"}, tmp_path)
    assert line[0] == "uvicorn" and line[line.index("--port") + 1] == "81"
    assert line[line.index("--workers") + 1] == "3" and environment["KEPT"] == "yes"


@pytest.mark.long
def test_the_process_of_the_container_is_the_server_and_ends_on_sigterm(uri, tmp_path):
    port, log = free_port(), tmp_path / "server.log"
    environment = os.environ | {
        "MODEL_URI": uri,
        "PORT": str(port),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
    }
    with open(log, "w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "common.serving.container"],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/ping", server, log)
        assert "uvicorn" in Path(f"/proc/{server.pid}/cmdline").read_text()
        record = {name: EXAMPLES[0][name] for name in ("question", "context")}
        assert post(address, {"dataframe_records": [record]})[0] == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) in (0, -signal.SIGTERM)
    finally:
        server.kill()
        server.wait(30)


def test_the_dockerfile_passes_hadolint():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, FOLDER / "Dockerfile", ROOT / "docs" / "team" / "Dockerfile"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_dockerfile_copies_is_there_and_sent():
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    copied = [part for line in lines if line.startswith("COPY") for part in line.split()[1:-1]]
    sent = (ROOT / ".dockerignore").read_text().split()
    for name in copied:
        if name != "results/image/model":
            assert (ROOT / name).exists(), name
        allowed = [line[1:].rstrip("*") for line in sent if line.startswith("!")]
        assert any(name.startswith(start) for start in allowed), name
    assert "USER 10001" in lines and any(line.startswith("HEALTHCHECK") for line in lines)
    (port,) = (line.split()[1] for line in lines if line.startswith("EXPOSE"))
    assert container.command({}, Path("/model"))[0].count(port) == 1
    (asked,) = (line for line in lines if "urllib.request" in line)
    assert f"os.environ.get('PORT') or {port}" in asked


def test_kubernetes_takes_the_manifest():
    import kubernetes_validate

    documents = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, "1.31", strict=True)
    (deployment, *_), kinds = documents, [each["kind"] for each in documents]
    assert kinds == ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"]
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    drain = {each["name"]: int(each["value"]) for each in server["env"]}["SERVING_DRAIN_SECONDS"]
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 60 + drain > 60
    assert {probe: server[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")} == {
        "readinessProbe": "/ready",
        "livenessProbe": "/ping",
    }
