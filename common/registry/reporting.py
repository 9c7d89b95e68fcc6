"""What registering and rolling back print, and the command that serves a version. Imports nothing that takes long."""

from typing import TYPE_CHECKING

from .gate import CHAMPION

if TYPE_CHECKING:
    from .register import Outcome


def foreseen(outcome: "Outcome") -> str:
    """What a dry run found."""
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
    """Which version of a model was champion, and which is now."""
    if dry_run:
        return f"{name}: version {before} would give way to version {now}, the {CHAMPION} before it."
    return (
        f"{name}: version {before} gave way to version {now}, the {CHAMPION} before it.\n"
        "A server that is running keeps the version that it started with: restart it."
    )
