"""Who is champion: aliases and the tags around them, written so that no kill and no second writer confuses them.

The alias `champion` alone says who it is; setting it is one call. MLflow can neither lock nor compare and set, so whoever
promotes first writes on its version whom it is about to replace, looks again, moves the alias, and looks again: two
that replace the same champion at once both see each other then, and both come to the same winner. Of three at once one
is champion too, one that passed against the champion that it found, but not always the best of the three.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ..errors import UserError
from .gate import CHALLENGER, CHAMPION, Verdict

BEFORE = "champions_before"
"""Tag of a version: the champions that it replaced, the latest first, as numbers; NOBODY for the first one."""

SINCE = "champion_since"
"""Tag of a version that is champion, or was: register_best does not promote it again."""

ROLLED_BACK = "rolled_back"
"""Tag of a version that a rollback took the alias from."""

NOBODY = "-"
KEPT = 100
ROUNDS = 10


@dataclass(frozen=True)
class Settled:
    """What became of a version. `alias` is None where another took its place at once."""

    alias: str | None
    verdict: Verdict
    incumbent: str | None
    """Number of the version that it was judged against."""


def by_alias(client: MlflowClient, name: str, alias: str) -> str | None:
    """Number of the version that has an alias."""
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        # A server with accounts forbids looking at a model that does not exist.
        if not client.search_registered_models(f"name = '{name}'"):
            return None
        raise


def promote(
    client: MlflowClient,
    name: str,
    number: str,
    judge: Callable[[str, str | None], Verdict],
    note: Callable[[Verdict, str | None], None],
) -> Settled:
    """Make a version champion if it is judged so against the champion at hand, else challenger.

    judge: (a version's number, the champion's or None) → verdict; it may be asked about other versions that are being
    promoted at the same time. note: record a verdict on the version, called before an alias depends on it.
    """
    verdict, against = None, None
    _tidy(client, name)
    for _ in range(ROUNDS):
        # Read before the alias: who was champion by then, and is not now, was set aside on purpose.
        aside = {n for n, tags in _tags(client, name).items() if SINCE in tags}
        incumbent = by_alias(client, name, CHAMPION)
        if incumbent == number:
            # Another process settled it so.
            _write(client.set_model_version_tag, name, number, SINCE, _now())
            return Settled(CHAMPION, verdict or judge(number, None), against)
        verdict, against = judge(number, incumbent), incumbent
        note(verdict, incumbent)
        if verdict.alias != CHAMPION:
            _write(client.set_registered_model_alias, name, CHALLENGER, number)
            # After the alias: a version with this tag and no alias is on its way to be champion.
            _forget(client, name, number)
            return Settled(CHALLENGER, verdict, incumbent)
        _write(client.set_model_version_tag, name, number, BEFORE, _line(client, name, incumbent))
        if by_alias(client, name, CHAMPION) != incumbent:
            continue
        _crown(client, name, number)
        # Whoever writes last looks once more after it.
        while True:
            contestants = [number, *_rivals(client, name, number, incumbent, aside)]
            winner = _winner(contestants, judge)
            holder = by_alias(client, name, CHAMPION)
            if holder == winner or holder not in contestants:
                break
            _crown(client, name, winner)
        if winner == number:
            _write(client.set_model_version_tag, name, number, SINCE, _now())
            return Settled(CHAMPION if holder in contestants else None, verdict, incumbent)
    raise UserError(f"The champion of {name} changed {ROUNDS} times meanwhile: run this again.")


def rollback(client: MlflowClient, name: str, dry_run: bool = False) -> tuple[str, str]:
    """(version that was champion, version that is champion now): the one before it that still exists.

    A version that was rolled back is no champion to go back to. UserError if there is none.
    """
    current = by_alias(client, name, CHAMPION)
    if current is None:
        raise UserError(f"{name} has no champion, so there is nothing to roll back.")
    tags = _tags(client, name)
    line = [n for n in tags[current].get(BEFORE, NOBODY).split() if n != NOBODY]
    target = next((n for n in line if n in tags and ROLLED_BACK not in tags[n]), None)
    if target is None:
        gone = f" (version {', '.join(line)} was deleted or rolled back)" if line else ""
        raise UserError(
            f"{name} has no earlier champion than version {current} to roll back to{gone}. It stays champion."
        )
    if not dry_run:
        # Before the alias: a kill in between leaves the champion as it was, and `promote` tidies the tag up.
        _write(client.set_model_version_tag, name, current, ROLLED_BACK, f"{_now()}, to version {target}")
        _crown(client, name, target)
    return current, target


def _crown(client: MlflowClient, name: str, number: str) -> None:
    """Move the alias champion to a version, which is no challenger then."""
    if by_alias(client, name, CHALLENGER) == number:
        _write(client.delete_registered_model_alias, name, CHALLENGER)
    _write(client.set_registered_model_alias, name, CHAMPION, number)


def _rivals(
    client: MlflowClient, name: str, number: str, incumbent: str | None, aside: set[str]
) -> list[str]:
    """The other versions that came after the same champion meanwhile, or were on their way when they were killed."""
    found = []
    for n, tags in _tags(client, name).items():
        line = tags.get(BEFORE, "").split()
        after = bool(line) and (incumbent is None or incumbent in line)
        if after and n not in (number, *aside) and ROLLED_BACK not in tags:
            found.append(n)
    return found


def _winner(contestants: list[str], judge: Callable[[str, str | None], Verdict]) -> str:
    """The oldest version, unless a later one is to be champion against it: the same for whoever asks."""
    first, *others = sorted(contestants, key=int)
    for other in others:
        if judge(other, first).alias == CHAMPION:
            first = other
    return first


def _line(client: MlflowClient, name: str, incumbent: str | None) -> str:
    """The champions up to and with this one, the latest first."""
    if incumbent is None:
        return NOBODY
    earlier = client.get_model_version(name, incumbent).tags.get(BEFORE, NOBODY).split()
    return " ".join([incumbent, *(n for n in earlier if n not in (incumbent, NOBODY))][:KEPT])


def _tidy(client: MlflowClient, name: str) -> None:
    """Mend what a kill, or an alias that was set by hand, left on the champion: the alias is right."""
    champion = by_alias(client, name, CHAMPION)
    if champion is None:
        return
    tags = client.get_model_version(name, champion).tags
    if SINCE not in tags:
        _write(client.set_model_version_tag, name, champion, SINCE, f"before {_now()}")
    if ROLLED_BACK in tags:
        _write(client.delete_model_version_tag, name, champion, ROLLED_BACK)


def _forget(client: MlflowClient, name: str, number: str) -> None:
    """Of a version that was never champion, whom it was to replace."""
    tags = client.get_model_version(name, number).tags
    if BEFORE in tags and SINCE not in tags:
        _write(client.delete_model_version_tag, name, number, BEFORE)


def _write(call: Callable, *values: str) -> None:
    """Write, once more where another process made or removed the same row meanwhile: MLflow's SQL store looks first."""
    try:
        call(*values)
    except MlflowException as error:
        if error.error_code not in ("BAD_REQUEST", "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"):
            raise
        call(*values)


def _tags(client: MlflowClient, name: str) -> dict[str, dict[str, str]]:
    """Tags of every version by its number."""
    return {str(v.version): dict(v.tags) for v in client.search_model_versions(f"name = '{name}'")}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
