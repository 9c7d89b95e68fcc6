"""MLflow stores of tests: fresh ones, without the seconds in which MLflow leads an empty database through its history."""

import io
import sqlite3
from contextlib import closing, contextmanager, redirect_stderr
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import pytest

from common.tracking.store import configure


@contextmanager
def in_force(folder: Path):
    """The store of a folder, made where none is, in force for this process and those it starts; gives its URI."""
    with _configured(fresh(folder)) as uri:
        yield uri


def fresh(folder: Path) -> str:
    """Put a store into a folder, as the suite makes one, unless one is there; returns its URI."""
    content, artifacts = _made()
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "mlflow.db"
    if not database.is_file():
        database.write_bytes(content)
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(
                "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)",
                (artifacts, (folder / "mlruns").as_uri()),
            )
    return f"sqlite:///{database}"


@cache
def _made() -> tuple[bytes, str]:
    """(database, URI of the artifacts' folder) of a store that the suite has just made."""
    with TemporaryDirectory() as folder:
        database = Path(folder) / "mlflow.db"
        with redirect_stderr(io.StringIO()), _configured(f"sqlite:///{database}"):
            return database.read_bytes(), (Path(folder) / "mlruns").as_uri()


@contextmanager
def _configured(uri: str):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        configure()
        try:
            yield uri
        finally:
            mlflow.set_tracking_uri(None)
