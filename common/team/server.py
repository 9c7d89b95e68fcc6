"""A team's MLflow server on PostgreSQL, in one folder: made, started, stopped."""

import base64
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from filelock import FileLock, Timeout

from ..atomic import atomic_write
from ..errors import UserError, last_line
from .postgres import Postgres, newest

ADMIN = "admin"
ROLE = "mlflow"
DATABASES = ("mlflow", "mlflow_auth")
"""The store's and the accounts' databases; both belong to the database role ROLE."""

_SECONDS_TO_START = 300
_SECONDS_TO_STOP = 30
_SECONDS_A_PASSWORD_IS_REMEMBERED = 30


@dataclass(frozen=True)
class Settings:
    """Settings of a team's server, kept in its `team.json`, which only its owner may read."""

    port: int = 5000
    allowed_hosts: tuple[str, ...] = ()
    """Names by which clients address the server besides localhost: those of the TLS proxy in front of it."""
    workers: int = 2
    admin_password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    database_password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    superuser_password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(32))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Team:
    """The server in a folder. Failures raise UserError with the remedy."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder).absolute()
        self.postgres = Postgres(self.folder / "postgres")
        self.artifacts = self.folder / "artifacts"
        self.log = self.folder / "mlflow.log"
        self._file, self._pid = self.folder / "team.json", self.folder / "mlflow.pid"

    @property
    def settings(self) -> Settings:
        """UserError if the folder holds no team's server."""
        try:
            stored = json.loads(self._file.read_text())
        except FileNotFoundError:
            raise UserError(
                f"{self.folder} holds no team's server: choose another --folder, or make one (up)."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{self._file} cannot be read: {error}.") from None
        return Settings(**stored | {"allowed_hosts": tuple(stored["allowed_hosts"])})

    def up(self, **wanted: Any) -> bool:
        """Start the database and the server, after making what is missing; False if both ran already.

        wanted: `port`, `allowed_hosts`, `workers`; they are kept for later starts; None keeps the current value.
        """
        _check_installed()
        wanted = {name: value for name, value in wanted.items() if value is not None}
        with self.held():
            made = self._file.exists()
            settings = replace(self.settings if made else Settings(), **wanted)
            if self.server:
                if settings != self.settings:
                    raise UserError(
                        f"The server runs, with other settings (at {self.settings.address}): stop it first (down)."
                    )
                self.postgres.start()
                self._wait(settings)
                return False
            _check_port(settings.port)
            self.make(settings)
            self.postgres.start()
            self.ensure_databases()
            self._start(settings)
            return True

    def down(self) -> bool:
        """Stop the server, then its database; False if neither ran."""
        _ = self.settings
        with self.held():
            server, database = self.server, self.database_runs
            if server:
                _stop(server)
            self._pid.unlink(missing_ok=True)
            self.postgres.stop()
            return bool(server or database)

    @property
    def server(self) -> psutil.Process | None:
        """The server's process (psutil), None while it is stopped."""
        try:
            pid, started = map(float, self._pid.read_text().split())
            process = psutil.Process(int(pid))
            # After a restart of the machine another process may have this id.
            ours = abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None
        return process if ours else None

    @property
    def database_runs(self) -> bool:
        return self.postgres.exists and self.postgres.is_running

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let one command at a time work on the folder."""
        lock = FileLock(f"{self.folder}.lock")
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"Another command is at work on {self.folder}: wait until it is done.") from None
        except OSError as error:
            raise UserError(f"--folder {self.folder}: {error.strerror}.") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def database(self) -> Iterator[Postgres]:
        """The running database; it is stopped afterwards if it was stopped before."""
        ran = self.database_runs
        self.postgres.start()
        try:
            yield self.postgres
        finally:
            if not ran:
                self.postgres.stop()

    def uri(self, database: str) -> str:
        """SQLAlchemy's address of a database, without its password (`environment` has it)."""
        return f"postgresql+psycopg://{ROLE}@/{database}?host={quote(str(self.postgres.folder))}"

    def environment(self) -> dict[str, str]:
        """Environment of the server's own processes, without variables that configure MLflow as a client; where webhooks may go
        is the server's to know."""
        settings, foreign = self.settings, ("MLFLOW_", "PG")
        given = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(foreign) or name.startswith("MLFLOW_WEBHOOK_")
        }
        # Without a key each process makes one of its own, and cannot read what another wrote.
        key = base64.urlsafe_b64encode(hashlib.sha256(f"webhooks {settings.secret_key}".encode()).digest())
        return given | {
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key.decode(),
            "PGPASSWORD": settings.database_password,
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": settings.admin_password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": settings.secret_key,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def make(self, settings: Settings) -> None:
        """Make the folder and its empty database if they are missing, and save the settings."""
        if not self._file.exists() and self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(
                f"--folder {self.folder} holds other files: choose one that is new, empty or a team's."
            )
        newest()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The account that runs PostgreSQL for root must be able to pass through.
            self.folder.chmod(0o700 if os.geteuid() else 0o711)
            self.artifacts.mkdir(mode=0o700, exist_ok=True)
            self.save(settings)
            if not self.postgres.exists:
                self.postgres.create(settings.superuser_password)
        except OSError as error:
            raise UserError(f"--folder {self.folder}: {error.strerror}.") from None

    def save(self, settings: Settings) -> None:
        """Save settings; a running server uses them from its next start."""
        write_private(self._file, json.dumps(asdict(settings), indent=1) + "\n")

    def ensure_databases(self) -> None:
        """Make the server's databases and their role if they are missing."""
        settings = self.settings
        self.postgres.ensure(ROLE, settings.database_password, DATABASES, settings.superuser_password)

    def write_auth_config(self) -> None:
        """Write the file that MLflow's accounts need; it names the current folder."""
        write_private(self.folder / "auth.ini", _auth_config(self.uri(DATABASES[1])))

    def _start(self, settings: Settings) -> None:
        hosts = [*settings.allowed_hosts, "localhost", "127.0.0.1"]
        # A name is compared together with its port if a client's header has one.
        names = [name for host in hosts for name in dict.fromkeys((host, f"{host}:{settings.port}"))]
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"]
        command += ["--host", "127.0.0.1", "--port", str(settings.port), "--workers", str(settings.workers)]
        command += ["--backend-store-uri", self.uri(DATABASES[0]), "--allowed-hosts", ",".join(names)]
        command += ["--artifacts-destination", self.artifacts.as_uri()]
        # A line for each request would eventually fill the disk.
        command += ["--uvicorn-opts", "--log-level warning"]
        if settings.allowed_hosts:
            origins = ",".join(f"https://{host}" for host in settings.allowed_hosts)
            command += ["--cors-allowed-origins", origins]
        self.write_auth_config()
        with open(self.log, "a") as log:
            log_begins = log.tell()
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )
        self._pid.write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}\n")
        try:
            self._wait(settings, log_begins)
        except UserError:
            if process.poll() is None:
                _stop(psutil.Process(process.pid))
            self._pid.unlink(missing_ok=True)
            self.postgres.stop()
            raise

    def _wait(self, settings: Settings, log_begins: int = 0) -> None:
        end = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < end and self.server:
            try:
                with urllib.request.urlopen(f"{settings.address}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.3)
        logged = self.log.read_text(errors="replace")[log_begins:]
        if "out-of-date" in logged:
            raise UserError(
                f"The store in {self.folder} was made by an older MLflow than {version('mlflow')}: bring it up to "
                "date (upgrade, which backs it up first)."
            )
        last = last_line(logged, "nothing")[:300]
        raise UserError(f"The server in {self.folder} does not answer; its log {self.log} ends: {last}")


def write_private(file: Path, text: str) -> None:
    """Write a file, whole or not at all, that only its owner may read."""
    with atomic_write(file) as part:
        with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:
            stream.write(text)


def _auth_config(uri: str) -> str:
    # In configuration files % begins a reference.
    return (
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = {uri.replace('%', '%%')}\n"
        f"admin_username = {ADMIN}\n"
        # Otherwise the password is hashed for each request, which takes tens of milliseconds.
        f"auth_cache_ttl_seconds = {_SECONDS_A_PASSWORD_IS_REMEMBERED}\n"
    )


def _stop(server: psutil.Process) -> None:
    """End a server and its workers: by a signal first, by force after a while."""
    processes = [server, *server.children(recursive=True)]
    os.killpg(server.pid, signal.SIGTERM)
    _, left = psutil.wait_procs(processes, timeout=_SECONDS_TO_STOP)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)


def _check_installed() -> None:
    if missing := [name for name in ("mlflow", "flask_wtf", "psycopg") if not find_spec(name)]:
        raise UserError(f"A team's server needs {', '.join(missing)}: pip install -r requirements-team.txt")


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port} cannot be used ({error}): choose another.") from None
