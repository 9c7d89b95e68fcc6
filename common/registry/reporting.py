"""The texts that registering and rolling back print, and the command that serves a version. Every import is quick."""

from typing import TYPE_CHECKING

from .gate import CHAMPION

if TYPE_CHECKING:
    from .register import Outcome


def foreseen(outcome: "Outcome") -> str:
    """The result of a dry run."""
    change = f"would be {outcome.alias}" if outcome.alias else "would stay as it is"
    return f"Dry run, nothing was written: run {outcome.run_id} {change}."


def registered(outcome: "Outcome") -> str:
    """The version that was registered or found, and how to serve it."""
    role = f", {outcome.alias}" if outcome.alias else ""
    before = "" if outcome.is_new else " (registered before)"
    uri = f"models:/{outcome.name}" + (f"@{outcome.alias}" if outcome.alias else f"/{outcome.version}")
    return (
        f"{outcome.name} version {outcome.version}{role}: run {outcome.run_id}{before}\n\n{how_to_serve(uri)}"
    )


def how_to_serve(uri: str) -> str:
    """The command that serves a model."""
    return f"Serve it, from the project's folder:\n  mlflow models serve -m {uri} --env-manager local -p 5001"


def rolled_back(name: str, before: str, now: str, dry_run: bool) -> str:
    """Which version of a model was champion before a rollback, and which is afterwards."""
    if dry_run:
        return f"{name}: version {now}, the previous {CHAMPION}, would replace version {before}."
    return (
        f"{name}: version {now}, the previous {CHAMPION}, replaced version {before}.\n"
        "A running server keeps the version that it started with: restart it."
    )
