"""Which values a field or a flag may have: declared with the field, shown in its help, checked before anything loads."""

import argparse
import math
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from .errors import UserError

SEEDS = 2**32 - 1
"""The largest seed that NumPy takes."""

LARGE = 1e30
"""Largest number that a setting may have: its products with usual values still fit in single precision."""


@dataclass(frozen=True)
class Bounds:
    """The values that may be given; a number must be finite too."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Collection[Any] | None = None

    def __bool__(self) -> bool:
        return self != Bounds()

    def __str__(self) -> str:
        """Such as "at least 0 and below 1"."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        limits = {
            "at least": self.minimum,
            "above": self.above,
            "at most": self.maximum,
            "below": self.below,
        }
        return " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)

    def hold(self, value: Any) -> bool:
        """Whether they allow a value; for a list, each of its values. None means no value and is allowed."""
        if value is None:
            return True
        if isinstance(value, list | tuple):
            return all(map(self.hold, value))
        if self.choices:
            return value in self.choices
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def bounded(default: Any, **limits: Any) -> Any:
    """A dataclass field with bounds."""
    return field(default=default, metadata={"bounds": Bounds(**limits)})


def bounds_of(kind: Any) -> dict[str, Bounds]:
    """Field → its bounds, of a dataclass whose fields were declared with `bounded` or `settings.option`; only of fields that have some.

    A field of a Literal type, or a list of such values, has the type's values as choices. A field that is declared again
    without bounds, for example with a technique's own default, keeps its bounds.
    """
    kind = kind if isinstance(kind, type) else type(kind)
    kinds = [each for each in reversed(kind.__mro__) if is_dataclass(each)]
    declared = [field for each in kinds for field in fields(each)]
    found = {field.name: field.metadata["bounds"] for field in declared if field.metadata.get("bounds")}
    for name, hint in typing.get_type_hints(kind).items():
        if choices := literals(hint):
            found[name] = replace(found.get(name, Bounds()), choices=choices)
    return found


def literals(hint: Any) -> tuple[Any, ...]:
    """The values that a Literal type has, or a list or an optional of such values; () for any other type."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return next(filter(None, map(literals, typing.get_args(hint))), ())


def check_bounds(declared: Any) -> None:
    """Raise UserError for the first field of a dataclass instance that is out of its bounds; it is named as a flag."""
    for name, bounds in bounds_of(declared).items():
        value = getattr(declared, name)
        if not bounds.hold(value):
            raise UserError(f"--{name} is {value!r}: it must be {bounds}.")


def number(kind: type[int] | type[float] = int, **limits: Any) -> Callable[[str], int | float]:
    """argparse's `type` for an int or a float within bounds."""
    bounds = Bounds(**limits)

    def convert(text: str) -> int | float:
        value: int | float | None
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not bounds.hold(value):
            wanted = "a whole number" if kind is int else "a finite number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}{f' {bounds}' if bounds else ''}")
        return value

    return convert
