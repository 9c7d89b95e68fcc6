"""Searches: the values that may be proposed, when a trial is stopped early, and which resources it needs.

Optuna proposes the values, through Ray Tune (ray_backend.py).
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
"""Significant digits of a proposed number: more would change no result, and nobody could read the names of the rows."""


@dataclass(frozen=True)
class Space:
    """The values that may be proposed for one field."""

    kind: str
    """One of KINDS."""
    values: tuple[Any, ...]
    """(lowest, highest), both included; for a choice, all values."""

    def settle(self, value: Any) -> Any:
        """A proposed value as it is trained with: rounded to few digits, within the bounds."""
        if self.kind not in ("uniform", "loguniform"):
            return value
        low, high = self.values
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)

    def holds(self, value: Any) -> bool:
        """Whether the value may be proposed."""
        if self.kind == "choice":
            return value in self.values
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.values[0] <= value <= self.values[1]

    @property
    def all(self) -> Sequence[Any] | None:
        """Every value of the space; None for real numbers, which cannot be listed."""
        if self.kind == "choice":
            return self.values
        return range(self.values[0], self.values[1] + 1) if self.kind == "int" else None

    def end(self, value: Any) -> str:
        """Which end of the space a number is within a twentieth of: "lowest", "highest", or "" for neither."""
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
    """The number of points; infinite where a field has real numbers."""
    return math.prod(math.inf if space.all is None else len(space.all) for space in spaces.values())


def every_point(spaces: Spaces) -> Iterator[dict[str, Any]]:
    """Every point of spaces whose values can be listed, in the order of declaration."""
    for values in itertools.product(*(space.all or () for space in spaces.values())):
        yield dict(zip(spaces, values, strict=True))


def corners(spaces: Spaces) -> list[dict[str, Any]]:
    """Points in which every bound and every choice occurs at least once: they are checked before the search starts."""
    first = {axis: space.values[0] for axis, space in spaces.items()}
    found = [first, {axis: space.values[-1] for axis, space in spaces.items()}]
    found += [first | {axis: value} for axis, space in spaces.items() for value in space.values]
    return [point for i, point in enumerate(found) if point not in found[:i]]


def within(point: Mapping[str, Any], spaces: Spaces) -> bool:
    """Whether a search of these spaces could have proposed the point."""
    return point.keys() == spaces.keys() and all(spaces[axis].holds(value) for axis, value in point.items())


def space_type(value: Any, kind: type) -> Any:
    """The type of a space as a study declares it, `{loguniform: [1e-4, 1e-2]}`: pydantic makes a `Space` of it.

    value: the type of the field's values. kind: int, float, or any other type that they have.
    """
    fitting = {int: ("int", "choice"), float: ("uniform", "loguniform", "choice")}.get(kind, ("choice",))

    def check(declared: Any, handler: ValidatorFunctionWrapHandler) -> Space:
        for name in declared if isinstance(declared, Mapping) else ():
            if name not in KINDS:
                raise wrong(f"is searched by {quoted(name)}; choose one of {', '.join(KINDS)}")
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
    values: Any = list_type(value)
    return Annotated[dict[str, values], Field(min_length=1, max_length=1), one, WrapValidator(check)]
