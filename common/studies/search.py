"""What a study searches beyond grids: the values that may be proposed, when a trial is stopped early, what it asks for.

Nothing here proposes: that is Optuna's, by way of Ray Tune (ray_backend.py).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import UserError

KINDS = ("uniform", "loguniform", "int", "choice")
DIGITS = 4
"""Significant digits of a number that is proposed: more would tell nothing, and make names that nobody can read."""


@dataclass(frozen=True)
class Space:
    """The values that may be proposed for one field."""

    kind: str
    """One of KINDS."""
    values: tuple
    """(lowest, highest), both included; of a choice, all."""

    def settle(self, value):
        """A proposed value as it is trained with: of few digits, and within the bounds."""
        if self.kind not in ("uniform", "loguniform"):
            return value
        low, high = self.values
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)

    def holds(self, value) -> bool:
        """Whether the value may be proposed."""
        if self.kind == "choice":
            return value in self.values
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.values[0] <= value <= self.values[1]

    @property
    def all(self) -> Sequence | None:
        """Every value there is; None where they cannot be counted."""
        if self.kind == "choice":
            return self.values
        return range(self.values[0], self.values[1] + 1) if self.kind == "int" else None

    def end(self, value) -> str:
        """ "lowest" or "highest" where a number lies within a twentieth of that end of the space, else ""."""
        numbers = [v for v in self.values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(self.values) or len(set(numbers)) < 2:
            return ""
        scale = math.log if self.kind == "loguniform" else float
        low, high = scale(min(numbers)), scale(max(numbers))
        near = (high - low) / 20 if self.kind in ("uniform", "loguniform") else 0.0
        if scale(value) <= low + near:
            return "lowest"
        return "highest" if scale(value) >= high - near else ""


Spaces = Mapping[str, Space]
"""Axis → its space."""


@dataclass(frozen=True)
class Asha:
    """Stops trials that fall behind (Li et al., 2020): at epochs grace_period × reduction_factor^k one goes on if its
    validation score is among the best 1 / reduction_factor of those that got there before it."""

    grace_period: int = 1
    """Epochs that every trial is given."""
    reduction_factor: int = 3


@dataclass(frozen=True)
class Resources:
    """What each trial asks for of a machine."""

    cpus: int = 1
    gpus: float = 0


def count(spaces: Spaces) -> float:
    """How many points there are; infinite with a field of real numbers."""
    return math.prod(math.inf if space.all is None else len(space.all) for space in spaces.values())


def every_point(spaces: Spaces) -> Iterator[dict]:
    """Every point of spaces that can be counted, in the order of declaration."""
    for values in itertools.product(*(space.all for space in spaces.values())):
        yield dict(zip(spaces, values, strict=True))


def corners(spaces: Spaces) -> list[dict]:
    """Points that hold every bound and every choice at least once: what can be checked of a space beforehand."""
    first = {axis: space.values[0] for axis, space in spaces.items()}
    found = [first, {axis: space.values[-1] for axis, space in spaces.items()}]
    found += [first | {axis: value} for axis, space in spaces.items() for value in space.values]
    return [point for i, point in enumerate(found) if point not in found[:i]]


def within(point: Mapping, spaces: Spaces) -> bool:
    """Whether these spaces could have proposed the point."""
    return point.keys() == spaces.keys() and all(spaces[axis].holds(value) for axis, value in point.items())


def space(declared, axis: str, kind: type, value: Callable, where: str) -> Space:
    """A field's space as a study declares it, `{loguniform: [1e-4, 1e-2]}`.

    kind: int, float or what else the field is; value: what turns a declared value into one of the field's type.
    """
    if not isinstance(declared, Mapping) or len(declared) != 1:
        raise UserError(
            f"{where}: {axis} is {declared!r}; it must be one of {', '.join(KINDS)} with its values, "
            "such as {loguniform: [1e-4, 1e-2]} or {choice: [4, 8]}."
        )
    ((name, values),) = declared.items()
    if name not in KINDS:
        raise UserError(f"{where}: {axis} is searched by {name!r}; choose one of {', '.join(KINDS)}.")
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: {axis}, {name}: is {values!r}; it must be a list.")
    wanted = int if name == "int" else float
    if name != "choice" and kind is not wanted:
        fitting = {int: "int or choice", float: "uniform, loguniform or choice"}.get(kind, "choice")
        raise UserError(f"{where}: {axis} cannot be searched by {name}; use {fitting}.")
    found = tuple(value(each) for each in values)
    if name == "choice":
        if any(each in found[:i] for i, each in enumerate(found)):
            raise UserError(f"{where}: {axis} lists a value twice: {values}.")
        return Space(name, found)
    if any(type(each) is not wanted for each in found) or len(found) != 2 or not found[0] < found[1]:
        raise UserError(f"{where}: {axis}, {name}: is {values}; it must be [lowest, highest].")
    if name == "loguniform" and found[0] <= 0:
        raise UserError(f"{where}: {axis}, loguniform: is {values}; its lowest value must be above 0.")
    return Space(name, found)


def trials(declared, where: str) -> int:
    """How many points each search of a stage may try."""
    if not _whole(declared, 1):
        raise UserError(f"{where}: trials is {declared!r}; it must be how many points each search tries.")
    return declared


def scheduler(declared, where: str) -> Asha | None:
    """`asha`, or `{asha: {grace_period: 1, reduction_factor: 3}}`; None stops nothing."""
    if declared is None:
        return None
    settings = declared.get("asha", {}) if isinstance(declared, Mapping) and len(declared) == 1 else {}
    known = {"grace_period": 1, "reduction_factor": 2}
    if declared != "asha" and not (
        isinstance(declared, Mapping) and list(declared) == ["asha"] and isinstance(settings or {}, Mapping)
    ):
        raise UserError(f"{where}: scheduler is {declared!r}; it must be asha.")
    for name, value in (settings or {}).items():
        if name not in known or not _whole(value, known[name]):
            raise UserError(
                f"{where}: scheduler, asha: {name}: {value!r}; grace_period (1 or more) and reduction_factor (2 or more) "
                "are what can be set."
            )
    return Asha(**(settings or {}))


def resources(declared, where: str) -> Resources:
    """`{cpus: 2, gpus: 1}`; a share of a GPU is a number below 1."""
    if not isinstance(declared or {}, Mapping):
        raise UserError(f"{where}: resources is {declared!r}; it must be such as {{cpus: 2, gpus: 1}}.")
    for name, value in (declared or {}).items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name == "cpus" and _whole(value, 1):
            continue
        if name == "gpus" and number and (0 <= value < 1 or value == int(value) > 0):
            continue
        raise UserError(
            f"{where}: resources: {name}: {value!r}; cpus (a whole number from 1) and gpus (0, a share, or a whole number) "
            "are what a trial can ask for."
        )
    return Resources(**(declared or {}))


def _whole(value, lowest: int) -> bool:
    return type(value) is int and value >= lowest
