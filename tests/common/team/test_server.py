"""What a team's server refuses and writes before anything is started; tests/scripts/test_team.py runs a whole one."""

import configparser
import os

import psutil
import pytest
import yaml
from cryptography.fernet import Fernet
from sqlalchemy.engine import make_url

from common.errors import UserError
from common.paths import ROOT
from common.team import postgres
from common.team import server as team
from common.team.postgres import Postgres
from common.team.server import DATABASES, Settings, Team


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(team, "_check_installed", lambda: None)


def test_without_postgresql_it_says_what_to_install(tmp_path, monkeypatch, installed):
    monkeypatch.setattr(postgres, "_folders", lambda: [])
    with pytest.raises(UserError, match="apt-get install postgresql"):
        Team(tmp_path / "team").up(port=0)
    assert not (tmp_path / "team").exists()


def test_without_its_packages_it_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(team, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install -r requirements-team.txt"):
        Team(tmp_path / "team").up()


def test_a_folder_with_other_files_is_left_alone(tmp_path, installed):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        Team(tmp_path).up(port=0)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_one_command_at_a_time(tmp_path, installed):
    with Team(tmp_path / "team").held():
        with pytest.raises(UserError, match="Another command is at work"):
            Team(tmp_path / "team").up()


def test_data_of_a_postgresql_that_is_not_there(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(
        UserError, match="made by PostgreSQL 9, which is not installed: apt-get install postgresql-9"
    ):
        Postgres(tmp_path).start()


def test_a_folder_too_deep_for_a_socket(tmp_path):
    with pytest.raises(UserError, match="too long for a database's socket: choose a shorter --folder"):
        Postgres(tmp_path / ("d" * 100)).create("secret")


def test_a_number_that_another_process_has_now_is_not_the_server(tmp_path):
    server = Team(tmp_path)
    me = psutil.Process()
    for started, found in ((me.create_time(), me), (me.create_time() - 60, None)):
        (tmp_path / "mlflow.pid").write_text(f"{os.getpid()} {started}\n")
        assert server.server == found
    for text in ("", "1", "nonsense here"):
        (tmp_path / "mlflow.pid").write_text(text)
        assert server.server is None


def test_the_accounts_database_is_found_in_any_folder(tmp_path):
    server = Team(tmp_path / "50% of a team?")
    config = configparser.ConfigParser()
    config.read_string(team._auth_config(server.uri(DATABASES[1])))
    url = make_url(config["mlflow"]["database_uri"])
    assert (url.database, url.query["host"]) == (DATABASES[1], str(server.postgres.folder))
    # Passwords stand neither in this file nor on a command line.
    assert url.password is None


def test_settings_are_kept_for_their_owner_alone(tmp_path):
    server, settings = Team(tmp_path), Settings(port=5050, allowed_hosts=("a.example.org",))
    server.save(settings)
    assert server.settings == settings and Settings() != Settings()
    assert (tmp_path / "team.json").stat().st_mode & 0o777 == 0o600
    assert {len(v) >= 12 for k, v in vars(settings).items() if "password" in k} == {True}


def test_the_compose_file_sets_up_the_same_server():
    folder = ROOT / "docs" / "team"
    ours, theirs = configparser.ConfigParser(), configparser.ConfigParser()
    ours.read_string(team._auth_config("postgresql+psycopg://mlflow@postgres/mlflow_auth"))
    theirs.read(folder / "auth.ini")
    assert ours == theirs
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    service = compose["services"]["mlflow"]
    assert f"mlflow@postgres/{DATABASES[0]}" in " ".join(service["command"])
    assert {"PGPASSWORD", *(name for name in SET if name.startswith("MLFLOW_"))} == set(
        service["environment"]
    )
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    for mounted in (
        volume.split(":")[0] for one in compose["services"].values() for volume in one["volumes"]
    ):
        assert (folder / mounted).is_file() if mounted.startswith("./") else mounted in compose["volumes"]
    build = service["build"]
    assert (folder / build["context"] / build["dockerfile"]).is_file()


SET = (
    "MLFLOW_AUTH_CONFIG_PATH",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
)


def test_the_server_gets_nothing_that_a_client_set(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    monkeypatch.setenv("PGHOST", "elsewhere")
    server = Team(tmp_path)
    server.save(Settings())
    given = server.environment()
    assert {name for name in given if name.startswith(("MLFLOW_", "PG"))} == {"PGPASSWORD", *SET}
    # It lasts, or secrets of webhooks could not be read any more, and fits MLflow's cipher.
    key = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
    assert Fernet(given[key]) and server.environment()[key] == given[key]
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    assert server.environment()["MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS"] == "true"
