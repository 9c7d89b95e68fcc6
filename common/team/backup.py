"""A team's store as files: backed up while the server runs, restored into a fresh folder, brought up to date."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..atomic import atomic_write, beside
from ..errors import UserError, last_line
from ..files import sha256
from .server import DATABASES, ROLE, Settings, Team, write_private

MANIFEST = "manifest.json"
_SETTINGS = "settings.json"
_CARRIED = ("port", "allowed_hosts", "workers", "admin_password")
"""Settings that a backup holds; a restored server gets new values of the others."""


def backup(team: Team, to: Path) -> Path:
    """Copy the store, running or not, into a new folder below `to`, which is returned.

    The databases come first, then the artifacts: MLflow stores a model's files before it marks the model as ready, so every
    model that is ready in the databases has its files in the copy. What is logged during the backup may be missing.
    """
    settings = team.settings
    if to.absolute().is_relative_to(team.folder):
        raise UserError(f"--to {to} is within {team.folder}: choose a folder elsewhere.")
    stamp = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    target = to / stamp
    try:
        to.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as part:
            part.mkdir(mode=0o700)
            with team.held(), team.database() as postgres:
                for name in DATABASES:
                    postgres.dump(name, ROLE, settings.database_password, part / f"{name}.dump")
                shutil.copytree(team.artifacts, part / "artifacts")
                major = postgres.version
            carried = {name: value for name, value in asdict(settings).items() if name in _CARRIED}
            write_private(part / _SETTINGS, json.dumps(carried, indent=1) + "\n")
            manifest = {
                "made": stamp,
                "mlflow": version("mlflow"),
                "postgresql": major,
                "files": digests(part),
            }
            (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"The backup in {to} could not be made: {str(error)[:300]}") from None
    return target


def restore(source: Path, team: Team, **wanted: Any) -> str:
    """Make a stopped server from a backup, in a fresh folder, whole or not at all; returns the version of MLflow that wrote it.

    wanted: `port`, `allowed_hosts` and `workers` if they are to differ from the backup's; None keeps the backup's.
    """
    manifest = check(source)
    if team.folder.exists() and any(team.folder.iterdir()):
        raise UserError(
            f"--folder {team.folder} is not empty: move it away, or restore into another --folder."
        )
    carried = json.loads((source / _SETTINGS).read_text())
    carried |= {name: value for name, value in wanted.items() if value is not None}
    settings = Settings(**carried | {"allowed_hosts": tuple(carried["allowed_hosts"])})
    part = Team(beside(team.folder))
    try:
        with team.held():
            # A restoration that was killed may have left its database running.
            part.postgres.stop()
            with atomic_write(team.folder):
                part.make(settings)
                with part.database() as postgres:
                    part.ensure_databases()
                    for name in DATABASES:
                        postgres.restore(name, ROLE, settings.database_password, source / f"{name}.dump")
                shutil.copytree(source / "artifacts", part.artifacts, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"{source} could not be restored: {str(error)[:300]}") from None
    return manifest["mlflow"]


def check(source: Path) -> dict[str, Any]:
    """The manifest of a backup; UserError if there is none, or if a file is missing or differs."""
    try:
        manifest = json.loads((source / MANIFEST).read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{source} is no backup: name a folder that backup made, with its {MANIFEST}."
        ) from None
    found = digests(source)
    wrong = sorted(name for name, digest in manifest["files"].items() if found.get(name) != digest)
    if wrong:
        raise UserError(
            f"The backup {source} is damaged: {wrong[0]} {'differs' if wrong[0] in found else 'is missing'} "
            f"({len(wrong)} of {len(manifest['files'])} files): use another."
        )
    return manifest


def upgrade(team: Team, to: Path) -> Path:
    """Bring a stopped server's databases to the schema of the MLflow that is installed; returns the backup that is made first."""
    if team.server:
        raise UserError(f"The server in {team.folder} runs: stop it first (down).")
    made = backup(team, to)
    store, accounts = map(team.uri, DATABASES)
    commands = (
        ["mlflow", "db", "upgrade", store],
        ["mlflow.server.auth", "db", "upgrade", "--url", accounts],
    )
    with team.held(), team.database():
        team.write_auth_config()
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", *command], env=team.environment(), capture_output=True, text=True
            )
            if done.returncode:
                last = last_line(done.stderr, "no message")[:300]
                raise UserError(f"The upgrade failed: {last}. The store as it was: {made}")
    return made


def digests(folder: Path) -> dict[str, str]:
    """Path below a folder → SHA-256 of the file, for every file except the manifest."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / MANIFEST)
    return {file.relative_to(folder).as_posix(): sha256(file) for file in files}
