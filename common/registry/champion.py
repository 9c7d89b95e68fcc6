"""Which version is champion: aliases and the tags around them, written so that no kill and no second writer confuses them.

Only the alias `champion` decides; setting it is one call. MLflow can neither lock nor compare and set. A process that
promotes a version therefore first writes on it which champion it is about to replace, looks again, moves the alias, and
looks again. Two processes that replace the same champion at the same time then see each other, and both arrive at the same
winner. Of three at the same time one also becomes champion; it passed against the champion that it found, but it is not
always the best of the three.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ..errors import UserError
from .gate import CHALLENGER, CHAMPION, Verdict

BEFORE = "champions_before"
"""Tag of a version: numbers of the champions that it replaced, the latest first; NOBODY for the first champion."""

SINCE = "champion_since"
"""Tag of a version that is or was champion: register_best does not promote it again."""

ROLLED_BACK = "rolled_back"
"""Tag of a version that lost the alias to a rollback."""

NOBODY = "-"
KEPT = 100
ROUNDS = 10


@dataclass(frozen=True)
class Settled:
    """The result of a promotion. `alias` is None if another version took its place at once."""

    alias: str | None
    verdict: Verdict
    incumbent: str | None
    """Number of the version that it was compared with."""


def by_alias(client: MlflowClient, name: str, alias: str) -> str | None:
    """Number of the version with an alias; None if there is none."""
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
    """Make a version champion if it is judged better than the present champion, else challenger.

    judge: (number of a version, the champion's or None) → verdict; it may be called for other versions that are promoted
    at the same time. note: records a verdict on the version; called before an alias depends on it.
    """
    verdict, against = None, None
    _tidy(client, name)
    for _ in range(ROUNDS):
        # Read before the alias: a version that was champion before and is not any more was set aside on purpose.
        aside = {n for n, tags in _tags(client, name).items() if SINCE in tags}
        incumbent = by_alias(client, name, CHAMPION)
        if incumbent == number:
            # Another process has promoted it.
            _write(client.set_model_version_tag, name, number, SINCE, _now())
            return Settled(CHAMPION, verdict or judge(number, None), against)
        verdict, against = judge(number, incumbent), incumbent
        note(verdict, incumbent)
        if verdict.alias != CHAMPION:
            _write(client.set_registered_model_alias, name, CHALLENGER, number)
            # After the alias: a version with this tag and no alias is about to become champion.
            _forget(client, name, number)
            return Settled(CHALLENGER, verdict, incumbent)
        _write(client.set_model_version_tag, name, number, BEFORE, _line(client, name, incumbent))
        if by_alias(client, name, CHAMPION) != incumbent:
            continue
        _crown(client, name, number)
        # The last process that writes looks again afterwards.
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
    raise UserError(f"The champion of {name} changed {ROUNDS} times during this call: run it again.")


def rollback(client: MlflowClient, name: str, dry_run: bool = False) -> tuple[str, str]:
    """(version that was champion, version that is champion afterwards): the latest earlier champion that still exists.

    Versions that were rolled back are skipped. UserError if there is none.
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
        # Before the alias: a kill in between leaves the champion as it was, and `promote` removes the tag.
        _write(client.set_model_version_tag, name, current, ROLLED_BACK, f"{_now()}, to version {target}")
        _crown(client, name, target)
    return current, target


def _crown(client: MlflowClient, name: str, number: str) -> None:
    """Move the alias champion to a version, and take the alias challenger from it."""
    if by_alias(client, name, CHALLENGER) == number:
        _write(client.delete_registered_model_alias, name, CHALLENGER)
    _write(client.set_registered_model_alias, name, CHAMPION, number)


def _rivals(
    client: MlflowClient, name: str, number: str, incumbent: str | None, aside: set[str]
) -> list[str]:
    """The other versions that replaced the same champion in the meantime, or whose promotion was killed."""
    found = []
    for n, tags in _tags(client, name).items():
        line = tags.get(BEFORE, "").split()
        after = bool(line) and (incumbent is None or incumbent in line)
        if after and n not in (number, *aside) and ROLLED_BACK not in tags:
            found.append(n)
    return found


def _winner(contestants: list[str], judge: Callable[[str, str | None], Verdict]) -> str:
    """The oldest version, unless a later one is judged better: the same result in every process."""
    first, *others = sorted(contestants, key=int)
    for other in others:
        if judge(other, first).alias == CHAMPION:
            first = other
    return first


def _line(client: MlflowClient, name: str, incumbent: str | None) -> str:
    """The champions up to and including this one, the latest first."""
    if incumbent is None:
        return NOBODY
    earlier = client.get_model_version(name, incumbent).tags.get(BEFORE, NOBODY).split()
    return " ".join([incumbent, *(n for n in earlier if n not in (incumbent, NOBODY))][:KEPT])


def _tidy(client: MlflowClient, name: str) -> None:
    """Correct the champion's tags after a kill, or after an alias that was set by hand: the alias is right."""
    champion = by_alias(client, name, CHAMPION)
    if champion is None:
        return
    tags = client.get_model_version(name, champion).tags
    if SINCE not in tags:
        _write(client.set_model_version_tag, name, champion, SINCE, f"before {_now()}")
    if ROLLED_BACK in tags:
        _write(client.delete_model_version_tag, name, champion, ROLLED_BACK)


def _forget(client: MlflowClient, name: str, number: str) -> None:
    """Remove from a version that was never champion the record of the champion that it was about to replace."""
    tags = client.get_model_version(name, number).tags
    if BEFORE in tags and SINCE not in tags:
        _write(client.delete_model_version_tag, name, number, BEFORE)


def _write(call: Callable, *values: str) -> None:
    """Write, and write again if another process created or removed the same row: MLflow's SQL store looks before it writes."""
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
