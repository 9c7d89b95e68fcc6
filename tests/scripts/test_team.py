"""A team's server, whole: two people train on it at once, one registers, anyone who may asks; backed up, wiped, restored."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pytest

from common.errors import UserError
from common.paths import ROOT
from common.team import accounts, postgres
from common.team.server import Team
from tests.scripts.conftest import SMALL, a_question, run_here, run_script
from tests.support import trained
from tests.support.server import free_port, post, served

DOC = (ROOT / "docs" / "TEAM.md").read_text()


def test_the_documents_commands_exist():
    for target in set(re.findall(r"make (team-\w+)", DOC)):
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)
    known = run_script("team.py", "--help").stdout
    for command in set(re.findall(r"scripts/team\.py ([a-z-]+)", DOC)):
        assert f"    {command} " in known, command


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("status",), "holds no team's server"),
        (("down",), "holds no team's server"),
        (("add-user", "ann"), "holds no team's server"),
        (("backup",), "holds no team's server"),
        (("up", "--port", 70000), "--port: '70000' is not a whole number at least 1 and at most 65535"),
        (("restore", "nowhere"), "nowhere is no backup"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(command, reason, tmp_path):
    done = run_here("team.py", *command, "--folder", tmp_path / "team", check=False, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and reason in done.stderr
    assert not (tmp_path / "team").exists()


class World:
    """A running server with four accounts, and two finished runs that two of them logged at once."""

    def __init__(self, folder: Path, tiny):
        self.folder, self.team = folder, Team(folder / "team")
        self.port = free_port()
        assert "Started" in self.call("up", "--port", self.port).stdout
        self.as_user = {
            name: self.variables(self.call("add-user", name, "--role", role).stdout)
            for name, role in (("ann", "writer"), ("bob", "writer"), ("rita", "reader"))
        }
        # Somebody who may log in, and nothing else: no role.
        accounts.call(self.team, "POST", "2.0", "users/create", username="olaf", password="o" * 16)
        self.as_user["olaf"] = self.as_user["rita"] | {
            "MLFLOW_TRACKING_USERNAME": "olaf",
            "MLFLOW_TRACKING_PASSWORD": "o" * 16,
        }
        self.data = trained.prepare_data(folder)
        self.train_at_once(tiny("bert"))

    def call(self, command, *args, **kwargs):
        return run_script("team.py", command, *args, "--folder", self.team.folder, **kwargs)

    @staticmethod
    def variables(printed: str) -> dict[str, str]:
        return dict(re.findall(r"export (\w+)=(\S+)", printed))

    def train_at_once(self, checkpoint: str) -> None:
        flags = ["--model_checkpoint", checkpoint, "--data_dir", self.folder / "data", *SMALL]
        scripts = {"ann": "bert_fine_tuning_LoRA.py", "bob": "bert_fine_tuning_IA3.py"}
        running = [
            subprocess.Popen(
                [sys.executable, ROOT / "scripts" / script, *map(str, flags)],
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.as_user[name]},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.folder,
            )
            for name, script in scripts.items()
        ]
        for process in running:
            output, _ = process.communicate(timeout=600)
            assert process.returncode == 0, output[-5000:]

    def acting_as(self, name: str) -> pytest.MonkeyPatch:
        """This process is that account's until the patch is undone."""
        patch = pytest.MonkeyPatch()
        for variable, value in self.as_user[name].items():
            patch.setenv(variable, value)
        mlflow.set_tracking_uri(self.as_user[name]["MLFLOW_TRACKING_URI"])
        return patch


@pytest.fixture(scope="module")
def world(tiny):
    try:
        postgres.newest()
    except UserError as error:
        pytest.skip(str(error))
    for module in ("psycopg", "flask_wtf"):
        pytest.importorskip(module, reason="pip install -r requirements-team.txt")
    # Not below pytest's own folder: that is closed to the account that PostgreSQL runs under for root.
    folder = Path(tempfile.mkdtemp(prefix="team-"))
    folder.chmod(0o755)
    team = Team(folder / "team")
    try:
        yield World(folder, tiny)
    finally:
        if team.folder.exists():
            team.down()
        shutil.rmtree(folder)
        mlflow.set_tracking_uri(None)


@pytest.fixture
def acting_as(world):
    patches = []
    yield lambda name: patches.append(world.acting_as(name))
    for patch in reversed(patches):
        patch.undo()
    mlflow.set_tracking_uri(None)


def request(world, path, name="rita", host=None, origin=None, method="GET", password=None) -> int:
    """The status of a request to the server."""
    settings = world.as_user[name]
    password = password or settings["MLFLOW_TRACKING_PASSWORD"]
    secret = base64.b64encode(f"{name}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}
    headers |= {"Host": host} if host else {}
    headers |= {"Origin": origin} if origin else {}
    body = b"{}" if method == "POST" else None
    asked = urllib.request.Request(f"{settings['MLFLOW_TRACKING_URI']}{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


FIND = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=squad-qa"


@pytest.mark.long
def test_started_twice_is_started_once_and_only_its_owner_reads_the_secrets(world):
    assert "Running already" in world.call("up").stdout
    refused = world.call("up", "--port", free_port(), check=False)
    assert refused.returncode == 2 and "stop it first" in refused.stderr
    other = run_script("team.py", "up", "--port", world.port, "--folder", world.folder / "other", check=False)
    assert other.returncode == 2 and f"--port {world.port} cannot be used" in other.stderr
    folder = world.team.folder
    assert {(folder / name).stat().st_mode & 0o777 for name in ("team.json", "auth.ini")} == {0o600}
    passwords = [v for k, v in json.loads((folder / "team.json").read_text()).items() if "password" in k]
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert len(passwords) == 3 and not [p for p in passwords if p in shown]
    # The socket is the only door to the database.
    assert (folder / "postgres").stat().st_mode & 0o077 == 0
    assert not re.search(r"listening on IPv[46]", world.team.postgres.log.read_text())


@pytest.mark.long
def test_two_runs_at_once_share_one_base_and_lie_on_the_server(world, acting_as):
    acting_as("rita")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("squad-qa")
    assert experiment.artifact_location.startswith("mlflow-artifacts:/")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.data.tags["technique"] for run in runs} == {"LoRA", "IA3"}
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.tags["data_fingerprint"] == world.data.fingerprint
        assert {f.path for f in client.list_artifacts(run.info.run_id)} >= {"predictions", "loss_curve.png"}
        assert len(client.get_metric_history(run.info.run_id, "train_loss")) > 2
    shared = client.get_experiment_by_name("shared-bases")
    assert len(client.search_runs([shared.experiment_id])) == 1
    assert not list(world.folder.glob("mlruns*")) and not list(world.folder.glob("*.db"))
    compared = run_script("compare.py", "--output_dir", world.folder / "compared", env=world.as_user["rita"])
    assert "LoRA" in compared.stdout and "IA3" in compared.stdout


@pytest.mark.long
def test_who_may_do_what(world, acting_as):
    assert request(world, FIND) == 200
    assert request(world, FIND, password="wrong") == 401
    assert request(world, FIND, "olaf") == 403
    assert request(world, FIND, host="evil.example.org") == 403
    posted = ("/api/2.0/mlflow/experiments/search",)
    assert request(world, *posted, method="POST", origin="https://evil.example.org") == 403

    acting_as("rita")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("squad-qa").experiment_id
    run_id = client.search_runs([experiment])[0].info.run_id
    for forbidden in (
        lambda: client.create_run(experiment),
        lambda: client.set_tag(run_id, "technique", "mine"),
        lambda: client.log_text(run_id, "mine", "predictions/test.json"),
        lambda: client.delete_run(run_id),
    ):
        with pytest.raises(Exception, match="403|Permission denied|PERMISSION_DENIED"):
            forbidden()

    refused = run_script("register_best.py", env=world.as_user["rita"], check=False)
    assert refused.returncode == 2 and "does not let rita do this" in refused.stderr, refused.stderr
    assert not client.search_model_versions("name = 'bert-squad-qa'")
    wrong = world.as_user["rita"] | {"MLFLOW_TRACKING_PASSWORD": "wrong"}
    refused = run_script("compare.py", env=wrong, check=False)
    assert refused.returncode == 2 and "Check MLFLOW_TRACKING_USERNAME" in refused.stderr


@pytest.mark.long
def test_registered_served_backed_up_wiped_and_restored(world, acting_as):
    # Bob promotes whichever of both runs is better: his own or Ann's.
    assert (
        "bert-squad-qa version 1, champion" in run_script("register_best.py", env=world.as_user["bob"]).stdout
    )
    acting_as("rita")
    version = mlflow.MlflowClient().get_model_version_by_alias("bert-squad-qa", "champion")
    recorded = mlflow.artifacts.load_dict(f"runs:/{version.tags['run_id']}/predictions/test.json")
    asked, expected = a_question(world.folder / "data", recorded)
    with served(world.folder, "models:/bert-squad-qa@champion", OMP_NUM_THREADS="1") as (address, _, _):
        status, text = post(address, {"dataframe_records": [asked]})
    assert status == 200 and json.loads(text)["predictions"][0]["answer"] == expected

    kept = Path(world.call("backup", "--to", world.folder / "backups").stdout.strip())
    assert "Stopped" in world.call("down").stdout
    assert world.call("status", check=False).returncode == 3
    shutil.rmtree(world.team.folder)
    damaged = world.folder / "damaged"
    shutil.copytree(kept, damaged)
    next((damaged / "artifacts").rglob("*.safetensors")).write_bytes(b"")
    refused = world.call("restore", damaged, check=False)
    assert refused.returncode == 2 and "is damaged" in refused.stderr and not world.team.folder.exists()

    world.call("restore", kept)
    refused = world.call("restore", kept, check=False)
    assert refused.returncode == 2 and "is not empty" in refused.stderr
    upgraded = world.call("upgrade", "--to", world.folder / "backups").stdout
    assert "The databases are up to date" in upgraded and len(list((world.folder / "backups").iterdir())) == 2
    world.call("up")
    # Rita's password is the one that she had.
    answered = run_script(
        "ask.py", asked["question"], "--context", asked["context"], env=world.as_user["rita"]
    )
    assert (expected or "(no answer)") in answered.stdout
    assert request(world, FIND, "olaf") == 403
    world.call("remove-user", "rita")
    assert "Stopped" in world.call("down").stdout and "Nothing was running" in world.call("down").stdout
