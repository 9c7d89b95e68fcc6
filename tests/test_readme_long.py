"""Lines of the README carried out in a shell that knows nothing."""

import json
import os
import re
import shutil
import signal
import subprocess

import mlflow
import pytest

from common.data.prepared import load
from common.paths import ROOT
from common.registry import register
from tests.scripts.conftest import SMALL
from tests.scripts.conftest import prepared as prepared
from tests.support import stores, trained
from tests.support.pages import README, commands, typed_lines
from tests.support.server import free_port, post, wait_for

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (ROOT / ".venv/bin/activate").is_file(), reason="the environment lies elsewhere"),
]


def in_a_bare_shell(line, **environment):
    """Activated as the README says; `environment` is all that it has besides."""
    given = [f"{name}={value}" for name, value in environment.items()]
    return [
        "env",
        "-i",
        *given,
        "bash",
        "--noprofile",
        "--norc",
        "-c",
        f". {ROOT}/.venv/bin/activate && {line}",
    ]


def test_the_readmes_line_serves_the_champion(tmp_path, tiny):
    line = re.findall(r"^(mlflow models serve .*)$", README, re.M)[0]
    assert "@champion" in line
    port = free_port()
    assert line.endswith("-p 5001")
    line = line.removesuffix("5001") + str(port)
    with stores.in_force(tmp_path), trained.checked_here():
        record = trained.prepare_data(tmp_path)
        examples = load(tmp_path / "data")[0]["test"].to_list()
        trained.log_run(tmp_path, tiny, record, examples, experiment="served")
        assert register.register_best("served").alias == "champion"
        uri = mlflow.get_tracking_uri()
    log = tmp_path / "server.log"
    with open(log, "w") as output:
        server = subprocess.Popen(
            in_a_bare_shell(line, MLFLOW_TRACKING_URI=uri), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/ping", server, log)
        # As the README asks it.
        body = json.loads(re.search(r"-d '(\{.*?\})'\n```", README, re.S)[1])
        status, text = post(address, body)
        assert status == 200 and "answer" in json.loads(text)["predictions"][0], text
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


def test_the_readmes_three_commands_make_a_champion_of_own_data(tmp_path, tiny, prepared):
    """As typed, with files of one's own in the working directory; a tiny model and short windows are all that is added."""
    lines = typed_lines(ROOT / "README.md")
    first = next(i for i, line in enumerate(lines) if "my-train.json" in line)
    small = " ".join(map(str, ("--model_checkpoint", tiny("bert"), *SMALL)))
    for part in ("train", "test"):
        shutil.copy(prepared[0].parent / f"{part}-v2.0.json", tmp_path / f"my-{part}.json")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for line, more in zip(lines[first : first + 3], ("", small, ""), strict=True):
        line = line.replace("scripts/", f"{ROOT}/scripts/")
        done = subprocess.run(
            in_a_bare_shell(f"{line} {more}", MLFLOW_TRACKING_URI=uri),
            cwd=tmp_path, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stderr[-4000:])
    client = mlflow.MlflowClient(uri)
    assert client.get_model_version_by_alias("bert-squad-qa", "champion").version


def test_the_readmes_mlflow_run_trains_in_the_run_that_mlflow_made(tmp_path, tiny, prepared):
    """MLflow logs parameters as typed beforehand; the script must neither clash with them nor make a second run."""
    (line,) = [line for line in commands(ROOT / "README.md") if line.startswith("mlflow run . -e lora ")]
    line = line.partition(" --experiment-name")[0]
    given = {"data_dir": prepared[0], "model_checkpoint": tiny("bert"), "learning_rate": "1e-3"}
    given |= {name.removeprefix("--"): value for name, value in zip(SMALL[::2], SMALL[1::2], strict=True)}
    flags = " ".join(f"-P {name}={value}" for name, value in given.items())
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = subprocess.run(
        in_a_bare_shell(f"{line} --experiment-name bare {flags}", MLFLOW_TRACKING_URI=uri),
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    client = mlflow.MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("bare").experiment_id])
    (run,) = [run for run in found if "technique" in run.data.tags]
    assert run.info.status == "FINISHED" and run.data.metrics["test_examples"] > 0
    assert run.data.params["learning_rate"] == "1e-3" and run.data.params["r"] == "16"
