"""What a study searches beyond grids: the values that may be proposed, when a trial is stopped early, what it asks for.

Nothing here proposes: that is Optuna's, by way of Ray Tune (ray_backend.py).
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from .checks import CLOSED, list_type, must, quoted, wrong

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


@pydantic_dataclass(frozen=True, config=CLOSED)
class Asha:
    """Stops trials that fall behind (Li et al., 2020): at epochs grace_period × reduction_factor^k a trial continues if its
    validation score is among the best 1 / reduction_factor of the trials that got there before it."""

    grace_period: Annotated[int, Field(strict=True, ge=1), must("be a whole number from 1")] = 1
    """Epochs that every trial gets."""
    reduction_factor: Annotated[int, Field(strict=True, ge=2), must("be a whole number from 2")] = 3


@pydantic_dataclass(frozen=True, config=CLOSED)
class Resources:
    """What each trial needs of a machine."""

    cpus: Annotated[int, Field(strict=True, ge=1), must("be a whole number from 1")] = 1
    gpus: Annotated[
        float,
        Field(strict=True, ge=0, allow_inf_nan=False),
        must("be 0, a share of one such as 0.5, or a whole number", lambda gpus: gpus < 1 or gpus % 1 == 0),
    ] = 0
    """Below 1: that share of one GPU."""


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


def space_type(value: Any, kind: type) -> Any:
    """The type of a space as a study declares it, `{loguniform: [1e-4, 1e-2]}`: pydantic makes a `Space` of it.

    value: the type of the field's values. kind: int, float, or any other type that they have.
    """
    fitting = {int: ("int", "choice"), float: ("uniform", "loguniform", "choice")}.get(kind, ("choice",))

    def check(declared: Any, handler: ValidatorFunctionWrapHandler) -> Space:
        for name in declared if isinstance(declared, Mapping) else ():
            if name not in KINDS:
                raise wrong(f"is searched by {name!r}; choose one of {', '.join(KINDS)}")
            if name not in fitting:
                raise wrong(f"cannot be searched by {name}; use {' or '.join(fitting)}")
        ((name, values),) = handler(declared).items()
        if name == "choice":
            return Space(name, tuple(values))
        if len(values) != 2 or any(type(each) is not kind for each in values) or not values[0] < values[1]:
            raise wrong(f"is {quoted(declared)}; {name} must have [lowest, highest]")
        if name == "loguniform" and values[0] <= 0:
            raise wrong(f"is {quoted(declared)}; its lowest value must be above 0")
        return Space(name, tuple(values))

    example = "such as {loguniform: [1e-4, 1e-2]} or {choice: [4, 8]}"
    one = must(f"be one of {', '.join(KINDS)} with its values, {example}")
    return Annotated[
        dict[str, list_type(value)], Field(min_length=1, max_length=1), one, WrapValidator(check)
    ]
