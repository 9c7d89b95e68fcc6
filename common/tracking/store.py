"""Where the MLflow store lies, and what it raises as messages to the user."""

import hashlib
import logging
import os
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from ..atomic import atomic_write
from ..errors import NotHere, UserError, first_line
from ..paths import ROOT

ERRORS = (MlflowException, SQLAlchemyError)
"""What a store raises that refuses, or that cannot be reached."""


def configure() -> None:
    """Settle the store: MLFLOW_TRACKING_URI if it is set, else the project's own `mlflow.db`, from any directory.

    A database that does not exist yet is made, by one process while others wait. UserError if it cannot be.
    """
    _settle()
    if database := _database():
        _create(database)
        _relocate(database)


def _settle() -> None:
    if not mlflow.is_tracking_uri_set():
        mlflow.set_tracking_uri(_uri(ROOT / "mlflow.db"))


def tracking_uri() -> str:
    """The address of the store in force."""
    uri: str = mlflow.get_tracking_uri()
    return uri


def exists() -> bool:
    """Whether the database of a local store is there, which is not made for it; any other store may be."""
    _settle()
    database = _database()
    return database is None or database.is_file()


def lock(name: str) -> FileLock:
    """Held by one process at a time of those that write to this store.

    Of a local store by whichever user or container: it lies beside the database. Of a server by this user on this
    machine; what others do meanwhile is found afterwards (`promotion`, `registry`, `serving.shared_base`).
    """
    if database := _database():
        return FileLock(f"{database}.{name}.lock", mode=0o666)
    store = hashlib.sha256(mlflow.get_tracking_uri().encode()).hexdigest()[:12]
    return FileLock(Path(tempfile.gettempdir()) / f"mlflow-{store}-{os.getuid()}-{name}.lock")


def artifact_location(name: str) -> str | None:
    """A folder beside the database of a local store, whatever the working directory; None: as the server likes."""
    database = _database()
    if database is None:
        return None
    folder = re.sub(r"[^\w.-]+", "_", name).strip(".") or "experiment"
    return (database.parent / "mlruns" / folder).as_uri()


class Gone(Exception):
    """What was to be told to the store has no place there any more: its database or the run was deleted."""


class Watch:
    """The database file of a local store as it is now; a process that holds a deleted file open would write on into it."""

    def __init__(self) -> None:
        self._database = _database()
        self._file = self._identity()

    def check(self) -> None:
        """Raise Gone if the database was deleted, or another file was put in its place."""
        if self._database is None or (now := self._identity()) == self._file:
            return
        what = "was deleted" if now is None else "was replaced by another one"
        raise Gone(f"its database {self._database} {what}")

    def _identity(self) -> tuple[int, int] | None:
        try:
            about = self._database.stat() if self._database else None
        except OSError:
            return None
        return about and (about.st_dev, about.st_ino)


def check_location(location: str) -> None:
    """MLflow stores absolute paths, and would make a folder that was moved away again, in its old place."""
    parsed, database = urlparse(location), _database()
    if database is None or parsed.scheme not in ("", "file"):
        return
    folder = Path(unquote(parsed.path))
    if not folder.is_relative_to(database.parent) and not folder.parent.exists():
        raise UserError(
            f"{database} keeps its artifacts in {folder}, which does not exist: was the project's folder moved? Move its "
            f"artifacts too (the folder mlruns), link the old place to the new one, or remove {database.name} to start with an "
            "empty store."
        )


@contextmanager
def explained(doing: str = "") -> Iterator[None]:
    """MLflow's errors as messages to the user."""
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        what = f"{doing}: " if doing else ""
        uri = mlflow.get_tracking_uri()
        raise NotHere(
            without_secrets(f"MLflow store {uri}: {what}{first_line(error)}{_advice(uri, error)}")
        ) from error


def without_secrets(text: str) -> str:
    """The text without the passwords of the addresses in it, and without the ones that clients are given by environment."""
    text = re.sub(r"(://[^/\s:@]*):[^/\s@]+@", r"\1:***@", text)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text


def _uri(database: Path) -> str:
    # No more is quoted than must be: MLflow makes the folder of the database by the name as it is quoted.
    return "sqlite:///" + str(database).replace("%", "%25").replace("?", "%3F")


def _database() -> Path | None:
    """The file of a local sqlite store, None for any other store."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith("sqlite:"):
        return None
    file = make_url(uri).database
    return Path(file).absolute() if file and file != ":memory:" else None


def _create(database: Path) -> None:
    """Make a new store's database under another name and put it in place whole: two processes that migrate one
    database crash, and one that is killed meanwhile would leave half of it."""
    if database.is_file():
        return
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock"):
            if database.is_file():
                return
            print(f"Making the MLflow store {database}", file=sys.stderr)
            with atomic_write(database, durable=True) as part:
                _migrate(part, database.parent / "mlruns")
    except OSError as error:
        raise UserError(
            f"The MLflow store {database} cannot be made: {error.strerror or error}. Set MLFLOW_TRACKING_URI to one "
            "that can be written."
        ) from None


_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's database holds absolute places of artifacts: (table, column)."""


def _relocate(database: Path) -> None:
    """Point a database that was copied or moved with its project's folder at the artifacts beside it.

    MLflow stores absolute places, so that a copy would write into the folder that it was copied from. What lies where no
    project of the suite would put it was chosen by somebody, and stays.
    """
    # A database that is linked to has its artifacts where it lies.
    real = database.resolve()
    if not (roots := _foreign_roots(real)):
        return
    try:
        with FileLock(f"{database}.lock"), closing(sqlite3.connect(real, timeout=60)) as connection:
            for old, new in roots.items():
                with connection:
                    for table, column in _LOCATIONS:
                        connection.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                            f"WHERE substr({column}, 1, ?) = ?",
                            (new, len(old) + 1, len(old) + 8, f"{old}/mlruns/"),
                        )
                print(
                    f"{database} was copied or moved from {_path_of(old)}; its artifacts are those in {real.parent / 'mlruns'} now.",
                    file=sys.stderr,
                )
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"{database} was copied or moved from {_path_of(next(iter(roots)))} and points at the artifacts there; it cannot be "
            f"written to change that ({error})."
        ) from None


def _foreign_roots(database: Path) -> dict[str, str]:
    """Old place → new place, as the database writes them, of each folder that this database was copied or moved from."""
    here, found = database.parent, {}
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
    except sqlite3.Error:
        # MLflow says what is wrong with it.
        return {}
    for location in {row[0] for row in rows if row[0]}:
        root, middle, name = location.rpartition("/mlruns/")
        if not middle or urlparse(location).scheme not in ("", "file"):
            continue
        folder = _path_of(root)
        if folder.resolve() == here:
            continue
        other = folder / database.name
        # Of another project, which has its own database; or gone, or left behind, while the artifacts are here.
        if (other.is_file() and not other.samefile(database)) or (here / "mlruns" / unquote(name)).exists():
            found[root] = here.as_uri() if root.startswith("file:") else str(here)
    return found


def _path_of(location: str) -> Path:
    return Path(unquote(urlparse(location).path))


def _migrate(file: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # Alembic tells of every migration.
    logging.getLogger("alembic").setLevel(logging.WARNING)

    def unsynced(connection: Any, _: object) -> None:
        # Hundreds of commits would each wait for the disk; the file reaches it whole before it is put in place.
        if not isinstance(connection, sqlite3.Connection):
            return
        _, _, name = connection.execute("PRAGMA database_list").fetchone()
        if Path(name).resolve() == file.resolve():
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", unsynced)
    try:
        store = SqlAlchemyStore(_uri(file), artifacts.as_uri())
    finally:
        event.remove(Engine, "connect", unsynced)
    store.engine.dispose()
    connection = sqlite3.connect(file)
    # Several trainings at once write without waiting for each other's readers; the setting stays in the file.
    connection.execute("PRAGMA journal_mode = wal")
    connection.close()


def _advice(uri: str, error: Exception) -> str:
    if uri == _uri(ROOT / "mlflow.db"):
        return ""
    status = error.get_http_status_code() if isinstance(error, MlflowException) else None
    if status == 401:
        return " Check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    if status == 403:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME", "this account")
        return f" The server does not let {user} do this: ask its administrator."
    return " Check MLFLOW_TRACKING_URI, or unset it."
