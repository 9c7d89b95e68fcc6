"""What each command of a team's server prints."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import accounts
from . import backup as backups
from .server import Team


def up(team: Team, **wanted: Any) -> str:
    """Start the server. wanted: `port`, `allowed_hosts` and `workers` of `Team.up`."""
    started = "Started" if team.up(**wanted) else "Running already"
    return (
        f"{started}: {team.settings.address}, kept in {team.folder}\n"
        f"The administrator is admin; the password is admin_password in {team.folder / 'team.json'}"
    )


def down(team: Team) -> str:
    """Stop the server and its database."""
    return "Stopped." if team.down() else "Nothing was running."


def status(team: Team) -> tuple[str, bool]:
    """What runs, and whether all of it does."""
    settings, server, database = team.settings, team.server, team.database_runs
    size = sum(file.stat().st_size for file in team.artifacts.rglob("*") if file.is_file())
    return (
        f"{settings.address}, kept in {team.folder}\n"
        f"server: {f'runs, process {server.pid}' if server else 'stopped'}\n"
        f"database: PostgreSQL {team.postgres.version}, {'runs' if database else 'stopped'}\n"
        f"artifacts: {size / 2**20:,.0f} MiB"
    ), bool(server and database)


def add_user(team: Team, name: str, role: str) -> str:
    """Make an account; the variables that its owner sets."""
    return _variables(team, name, accounts.add(team, name, role))


def reset_password(team: Team, name: str) -> str:
    """Give an account a new password; the variables that its owner sets."""
    return _variables(team, name, accounts.reset_password(team, name))


def remove_user(team: Team, name: str) -> str:
    """Remove an account."""
    accounts.remove(team, name)
    return f"Removed {name}."


def backup(team: Team, to: Path) -> str:
    """Copy the store; the folder of the copy."""
    return str(backups.backup(team, to))


def restore(team: Team, source: Path, **wanted: Any) -> str:
    """Make a server from a backup. wanted: as in `up`."""
    wrote, installed = backups.restore(source, team, **wanted), version("mlflow")
    done = f"Restored into {team.folder}; start it with up."
    if wrote != installed:
        done += f"\nThe backup is MLflow {wrote}'s, and {installed} is installed: upgrade before up."
    return done


def upgrade(team: Team, to: Path) -> str:
    """Back up, then bring the databases to the schema of the MLflow that is installed."""
    kept = backups.upgrade(team, to)
    return f"Backed up: {kept}\nThe databases are up to date; start the server with up."


def _variables(team: Team, name: str, password: str) -> str:
    hosts = team.settings.allowed_hosts
    return (
        f"export MLFLOW_TRACKING_URI={f'https://{hosts[0]}' if hosts else team.settings.address}\n"
        f"export MLFLOW_TRACKING_USERNAME={name}\n"
        f"export MLFLOW_TRACKING_PASSWORD={password}"
    )
