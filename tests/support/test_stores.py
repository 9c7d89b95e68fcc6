"""A copied store is one that the suite makes: with artifacts of its own, and not taken for one that was moved."""

import re
import sqlite3
from contextlib import closing
from urllib.parse import urlparse

import mlflow

from common.tracking import store
from tests.support import stores


def test_each_has_its_own_runs_and_artifacts_and_stays_where_it_is_made_again(tmp_path, capsys):
    for name in ("one", "other", "one"):
        before = (tmp_path / name).exists()
        with stores.in_force(tmp_path / name) as uri:
            assert store.tracking_uri() == uri == f"sqlite:///{tmp_path / name}/mlflow.db"
            runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
            assert len(runs) == before
            with mlflow.start_run(experiment_id="0") as run:
                mlflow.log_text(name, "name.txt")
            assert urlparse(run.info.artifact_uri).path.startswith(f"{tmp_path / name}/mlruns/0/")
            assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/name.txt") == name
    assert "copied" not in capsys.readouterr().err


def test_it_is_the_database_of_a_store_that_was_made_in_its_place(tmp_path, monkeypatch):
    made = tmp_path / "made"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{made}/mlflow.db")
    store.configure()
    mlflow.set_tracking_uri(None)
    stores.fresh(tmp_path / "copy")
    assert dump(tmp_path / "copy") == dump(made)


def dump(folder):
    """Tables and rows, with the folder's place and times left out."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        statements = [
            re.sub(r"\b\d{13}\b", "TIME", s.replace(str(folder), "")) for s in connection.iterdump()
        ]
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    # Each time, MLflow's migrations write indices, and constraints within a table, in another order.
    return mode, sorted(sorted(line.strip(" ,\t") for line in s.splitlines()) for s in statements)
