"""What the commands of a team's server print; servers themselves are in test_server.py and test_backup.py."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from common.team import commands


class FakeTeam:
    """A server that only records how it was started."""

    def __init__(self, folder: Path, running=False, hosts=()):
        self.folder, self.running, self.started_with = folder, running, None
        self.settings = SimpleNamespace(address="http://127.0.0.1:5000", allowed_hosts=hosts)
        self.postgres = SimpleNamespace(version="16.2")
        self.artifacts = folder / "artifacts"
        self.artifacts.mkdir()

    server = property(lambda self: SimpleNamespace(pid=77) if self.running else None)
    database_runs = property(lambda self: self.running)

    def up(self, **wanted):
        before, self.running, self.started_with = self.running, True, wanted
        return not before

    def down(self):
        before, self.running = self.running, False
        return before


@pytest.fixture
def team(tmp_path):
    return FakeTeam(tmp_path)


def test_a_server_is_started_once_and_says_where_its_password_lies(team, tmp_path):
    text = commands.up(team, port=5000, workers=2)
    assert text.startswith("Started: http://127.0.0.1:5000") and str(tmp_path / "team.json") in text
    assert team.started_with == {"port": 5000, "workers": 2}
    assert commands.up(team).startswith("Running already: ")


def test_a_server_is_stopped_once(team):
    commands.up(team)
    assert (commands.down(team), commands.down(team)) == ("Stopped.", "Nothing was running.")


def test_the_status_is_whole_only_if_server_and_database_run(team):
    text, runs = commands.status(team)
    assert not runs and "server: stopped" in text and "PostgreSQL 16.2, stopped" in text
    (team.artifacts / "model.bin").write_bytes(bytes(3 * 2**20))
    commands.up(team)
    text, runs = commands.status(team)
    assert runs and "process 77" in text and "artifacts: 3 MiB" in text


@pytest.mark.parametrize(
    ("hosts", "address"), [((), "http://127.0.0.1:5000"), (("mlflow.example",), "https://mlflow.example")]
)
def test_an_account_is_given_as_variables_to_set(hosts, address, tmp_path, monkeypatch):
    asked = []

    def add(*given):
        asked.append(given)
        return "secret"

    monkeypatch.setattr(commands.accounts, "add", add)
    team = FakeTeam(tmp_path, hosts=hosts)
    assert commands.add_user(team, "ann", "writer").splitlines() == [
        f"export MLFLOW_TRACKING_URI={address}",
        "export MLFLOW_TRACKING_USERNAME=ann",
        "export MLFLOW_TRACKING_PASSWORD=secret",
    ]
    assert asked == [(team, "ann", "writer")]


@pytest.mark.parametrize(("wrote", "warned"), [("3.17.2", False), ("3.0.0", True)])
def test_a_backup_of_another_mlflow_must_be_upgraded(wrote, warned, team, monkeypatch):
    monkeypatch.setattr(commands, "version", lambda package: "3.17.2")
    monkeypatch.setattr(commands.backups, "restore", lambda source, target, **wanted: wrote)
    text = commands.restore(team, Path("copy"))
    assert text.startswith(f"Restored into {team.folder}") and ("upgrade before up" in text) == warned
