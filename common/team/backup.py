"""A team's store as files: backed up while the server runs, restored into a fresh folder, brought up to date."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from ..errors import UserError, last_line
from .server import DATABASES, ROLE, Settings, Team, write_private

MANIFEST = "manifest.json"
_SETTINGS = "settings.json"
_CARRIED = ("port", "allowed_hosts", "workers", "admin_password")
"""Settings that a backup holds; a restored server gets fresh ones of the others."""


def backup(team: Team, to: Path) -> Path:
    """Copy the store, running or not, into a new folder below `to`, which is returned.

    The databases first, then the artifacts: MLflow stores a model's files before it calls the model ready, so that
    whatever the databases call ready has its files in the copy. What is logged meanwhile may be missing.
    """
    settings = team.settings
    if to.absolute().is_relative_to(team.folder):
        raise UserError(f"--to {to} lies within {team.folder}: a backup belongs elsewhere.")
    stamp = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    target, part = to / stamp, to / f"{stamp}.part"
    try:
        to.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
        try:
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
                "files": _digests(part),
            }
            (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise UserError(f"The backup in {to} could not be made: {str(error)[:300]}") from None
    return target


def restore(source: Path, team: Team, **wanted) -> str:
    """Make a stopped server from a backup, in a fresh folder, whole or not at all; returns the MLflow that wrote it.

    wanted: `port`, `allowed_hosts`, `workers` where they are to differ from the backup's; None leaves them.
    """
    manifest = check(source)
    if team.folder.exists() and any(team.folder.iterdir()):
        raise UserError(
            f"--folder {team.folder} is not empty: move it away, or restore into another --folder."
        )
    carried = json.loads((source / _SETTINGS).read_text())
    carried |= {name: value for name, value in wanted.items() if value is not None}
    settings = Settings(**carried | {"allowed_hosts": tuple(carried["allowed_hosts"])})
    part = Team(team.folder.with_name(f"{team.folder.name}.part"))
    try:
        with team.held():
            part.postgres.stop()
            shutil.rmtree(part.folder, ignore_errors=True)
            part.make(settings)
            try:
                with part.database() as postgres:
                    part.ensure_databases()
                    for name in DATABASES:
                        postgres.restore(name, ROLE, settings.database_password, source / f"{name}.dump")
                shutil.copytree(source / "artifacts", part.artifacts, dirs_exist_ok=True)
                if team.folder.exists():
                    team.folder.rmdir()
                part.folder.rename(team.folder)
            finally:
                shutil.rmtree(part.folder, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{source} could not be restored: {str(error)[:300]}") from None
    return manifest["mlflow"]


def check(source: Path) -> dict:
    """A backup's manifest; UserError if it is none, or if a file of it is missing or differs."""
    try:
        manifest = json.loads((source / MANIFEST).read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{source} is no backup: name a folder that backup made, with its {MANIFEST}."
        ) from None
    found = _digests(source)
    wrong = sorted(name for name, digest in manifest["files"].items() if found.get(name) != digest)
    if wrong:
        raise UserError(
            f"The backup {source} is damaged: {wrong[0]} {'differs' if wrong[0] in found else 'is missing'} "
            f"({len(wrong)} of {len(manifest['files'])} files): use another."
        )
    return manifest


def upgrade(team: Team, to: Path) -> Path:
    """Bring a stopped server's databases to the schema of the MLflow that is installed; returns the backup made before."""
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


def _digests(folder: Path) -> dict[str, str]:
    """sha256 of each file below a folder, but for the manifest."""
    digests = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file != folder / MANIFEST:
            with open(file, "rb") as stream:
                digests[file.relative_to(folder).as_posix()] = hashlib.file_digest(
                    stream, "sha256"
                ).hexdigest()
    return digests
