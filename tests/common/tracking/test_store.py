"""Where the store lies, and what is said when it cannot be used."""

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
import pytest
from filelock import Timeout
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import create_engine, text

from common.errors import UserError
from common.tracking import experiments
from common.tracking import store as store_module
from common.tracking.store import configure
from tests.support import stores
from tests.support.processes import process

OFF, FULL = 0, 2
"""sqlite's numbers for "PRAGMA synchronous"."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with stores.in_force(tmp_path_factory.mktemp("store")) as uri:
        yield uri


@pytest.fixture
def elsewhere(store):
    """Points this process at another store for the length of a test."""
    yield mlflow.set_tracking_uri
    mlflow.set_tracking_uri(store)


@pytest.mark.long
def test_three_first_scripts_at_once_from_three_folders_share_the_projects_store(tmp_path):
    root = tmp_path / "a project, 50% é?"
    body = (
        "store.ROOT = Path(sys.argv[1])\n"
        "store.configure()\n"
        "with runs.start('squad-qa', 'LoRA', {}) as run:\n"
        "    run.log_text('x', 'x.txt')\n"
    )
    started = []
    for name in "abc":
        (tmp_path / name).mkdir()
        started.append(process(body, tmp_path / name, root))
    for one in started:
        _, errors = one.communicate(timeout=120)
        assert one.returncode == 0, errors
    database = sqlite3.connect(root / "mlflow.db")
    assert database.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)] * 3
    assert database.execute("SELECT count(*) FROM experiments WHERE name = 'squad-qa'").fetchone() == (1,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert len(list((root / "mlruns" / "squad-qa").glob("*/artifacts/x.txt"))) == 3
    assert not any(path for name in "abc" for path in (tmp_path / name).iterdir())


@pytest.mark.long
def test_a_tracking_uri_wins_and_artifacts_follow_the_database(tmp_path):
    body = (
        "store.ROOT = Path('/nowhere')\n"
        "store.configure()\n"
        "with runs.start('squad-qa', 'LoRA', {}) as run:\n"
        "    run.log_text('x', 'x.txt')\n"
    )
    (tmp_path / "here").mkdir()
    one = process(body, tmp_path / "here", MLFLOW_TRACKING_URI="sqlite:///../there/my.db")
    _, errors = one.communicate(timeout=120)
    assert one.returncode == 0, errors
    assert (tmp_path / "there" / "my.db").is_file()
    assert len(list((tmp_path / "there" / "mlruns" / "squad-qa").glob("*/artifacts/x.txt"))) == 1


def test_a_new_store_is_on_the_disk_before_it_is_there(elsewhere, tmp_path, monkeypatch):
    """The commits that make it wait for no disk; those of every other database do."""
    synced, files, levels = os.fsync, [], []
    make = SqlAlchemyStore.__init__

    def level(engine):
        with engine.connect() as connection:
            return connection.execute(text("PRAGMA synchronous")).scalar()

    def made(self, *args, **kwargs):
        make(self, *args, **kwargs)
        levels.append((level(self.engine), level(create_engine(f"sqlite:///{tmp_path}/other.db"))))

    def fsync(descriptor):
        assert not (tmp_path / "mlflow.db").exists()
        files.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(SqlAlchemyStore, "__init__", made)
    elsewhere(f"sqlite:///{tmp_path}/mlflow.db")
    configure()
    assert files == [".mlflow.db.part"] and levels == [(OFF, FULL)]
    experiments.experiment_id("squad-qa")
    for name in ("mlflow.db", ".mlflow.db.part"):
        assert level(create_engine(f"sqlite:///{tmp_path}/{name}")) == FULL, name


def test_a_store_whose_folder_was_moved_is_refused(store):
    mlflow.create_experiment("moved", "file:///nowhere/mlruns/moved")
    with pytest.raises(UserError, match="keeps its artifacts in /nowhere/mlruns/moved"):
        experiments.experiment_id("moved")


TRAIN = (
    "store.ROOT = Path(sys.argv[1])\n"
    "store.configure()\n"
    "with runs.start('squad-qa', 'LoRA', {}) as run:\n"
    "    run.log_text('x', 'x.txt')\n"
)


def trained_in(project, folder):
    one = process(TRAIN, folder, project)
    _, errors = one.communicate(timeout=120)
    return one.returncode, errors


@pytest.mark.long
@pytest.mark.parametrize("how", ("copied", "copied without artifacts", "moved"))
def test_a_project_that_was_copied_or_moved_keeps_to_itself(how, tmp_path):
    first, second = tmp_path / "a project, 50% é", tmp_path / "second"
    assert trained_in(first, tmp_path)[0] == 0
    files = {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    if how == "moved":
        first.rename(second)
    elif how == "copied":
        shutil.copytree(first, second)
    else:
        second.mkdir()
        shutil.copy(first / "mlflow.db", second)
    code, errors = trained_in(second, tmp_path)
    assert code == 0 and f"was copied or moved from {first}" in errors, errors
    assert how != "moved" or not first.exists()
    if how != "moved":
        assert files == {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    assert len(list(second.glob("mlruns/squad-qa/*/artifacts/x.txt"))) == (1 if "without" in how else 2)
    database = sqlite3.connect(second / "mlflow.db")
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        assert {Path(unquote(urlparse(row[0]).path)).is_relative_to(second) for row in database.execute(
            f"SELECT {column} FROM {table}"
        )} == {True}  # fmt: skip
    # Told once.
    assert "copied" not in trained_in(second, tmp_path)[1]


@pytest.mark.long
def test_places_that_were_chosen_and_linked_folders_stay(tmp_path):
    first = tmp_path / "first"
    assert trained_in(first, tmp_path)[0] == 0
    chosen = tmp_path / "chosen" / "mlruns" / "squad-qa"
    with sqlite3.connect(first / "mlflow.db") as database:
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = 'squad-qa'", (chosen.as_uri(),)
        )
    chosen.mkdir(parents=True)
    (first / "mlruns").rename(tmp_path / "away")
    code, errors = trained_in(first, tmp_path)
    assert code == 0 and "copied" not in errors and len(list(chosen.glob("*/artifacts/x.txt"))) == 1

    (tmp_path / "link").symlink_to(tmp_path / "first")
    code, errors = trained_in(tmp_path / "link", tmp_path)
    assert code == 0 and "copied" not in errors and len(list(chosen.glob("*/artifacts/x.txt"))) == 2


def test_stores_that_cannot_be_used_are_refused(elsewhere, tmp_path):
    (tmp_path / "file").write_text("no database, only text")
    elsewhere(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    with pytest.raises(UserError, match="cannot be made: .*Set MLFLOW_TRACKING_URI"):
        configure()
    for uri, reason in (
        (f"sqlite:///{tmp_path / 'file'}", "not a database"),
        (str(tmp_path / "old"), "maintenance mode"),
    ):
        elsewhere(uri)
        configure()
        with pytest.raises(UserError, match=f"{reason}.*Check MLFLOW_TRACKING_URI"):
            experiments.experiment_id("x")


def test_a_local_store_is_locked_beside_its_database_for_every_user_and_container(
    store, tmp_path, monkeypatch
):
    """Neither the user's name, which a container's may lack, nor the temporary folder decides."""
    first = store_module.lock("register")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("getpass.getuser", lambda: 1 / 0)
    second = store_module.lock("register")
    assert Path(first.lock_file) == Path(second.lock_file)
    assert Path(first.lock_file).parent == Path(mlflow.get_tracking_uri().removeprefix("sqlite:///")).parent
    with first:
        assert Path(first.lock_file).stat().st_mode & 0o777 == 0o666
        with pytest.raises(Timeout):
            second.acquire(timeout=0)
    with second:
        pass


def test_a_servers_stores_are_locked_one_by_one(elsewhere):
    files = set()
    for uri in ("http://one:5000", "http://two:5000"):
        elsewhere(uri)
        files.add(store_module.lock("register").lock_file)
    assert len(files) == 2
