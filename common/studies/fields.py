"""Fields as a study's file gives them → values of the types that the techniques declare."""

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from ..bounds import Bounds, bounds_of, literals
from ..training.settings import RunArgs
from .checks import Faults, Place, like, list_type, must
from .search import space_type

VALUE, GRID, SEARCH = USES = ("base", "grid", "search")
"""What a section says of a field: its value, a list of values, or a space of values."""

SAMPLES = {
    "max_train_samples": "train",
    "max_validation_samples": "validation",
    "max_test_samples": "test",
}
"""Fields that a study may also give as a share of a split."""

_OF_THE_STUDY = {
    "seed": "list it under `seeds`",
    "parent_run": "the study sets it",
    "run_name": "the study sets it",
    "output_dir": "the study sets it",
    "resume": "a study always continues where it stopped",
    "skip_finished": "a study never repeats finished runs",
}
_FIXED = ("task", "experiment_name", "data_dir")
"""What is the same for all rows."""


_TYPES: dict[Any, tuple[Any, str]] = {
    int: (StrictInt, "be a whole number"),
    # YAML 1.1 takes 1e-3 for a text, and pydantic true for 1.
    float: (
        Annotated[float, BeforeValidator(lambda given: None if isinstance(given, bool) else given)],
        "be a number",
    ),
    bool: (StrictBool, "be true or false"),
    str: (StrictStr, "be a text"),
    list[str]: (list[StrictStr], "be a list of texts"),
}
"""Declared type → its type for pydantic, and what a value must be."""


def read(
    section: Mapping[Any, Any], use: str, place: Place, kinds: Mapping[str, type], key: str, faults: Faults
) -> dict[str, Any]:
    """Field → what a section says of it, in the type that the technique of this key declares. Faults are noted.

    use: VALUE, GRID or SEARCH. place: the section's place in the file. kinds: key → class of the techniques that the section
    is for; each of them must have its fields.
    """
    found = {}
    for field, declared in section.items():
        if reason := _refusal(field, use, kinds):
            faults.add((*place, field), reason)
            continue
        owner = RunArgs if field in types_of(RunArgs) else kinds[key]
        with faults.below(*place, field):
            found[field] = adapter(owner, key, field, use).validate_python(declared)
    return found


def _refusal(field: Any, use: str, kinds: Mapping[str, type]) -> str:
    """Why a section for these techniques cannot have a field, as the rest of a sentence; "" if it can."""
    if field in _OF_THE_STUDY:
        return f"is not for a row to set: {_OF_THE_STUDY[field]}"
    if field in _FIXED and use != VALUE:
        return "cannot vary within a study; set it in `base`"
    run = types_of(RunArgs)
    if field in run:
        return ""
    have = [key for key, kind in kinds.items() if field in types_of(kind)]
    if not have:
        known = [*run, *(name for kind in kinds.values() for name in types_of(kind))]
        return f"is not a field{like(field, known)}; the scripts' --help lists them"
    lacking = [key for key in kinds if key not in have]
    return (
        f"is not a field of {lacking[0]}; set it below `techniques`, {' and '.join(have)}" if lacking else ""
    )


@functools.cache
def adapter(owner: type, key: str, field: str, use: str) -> TypeAdapter[Any]:
    """Checks and converts what a file says of a field.

    owner: the dataclass that declares the field. key: the technique's, which messages name; "" for no technique.
    """
    hint = types_of(owner)[field]
    value = _value_type(field, hint, bounds_of(owner).get(field, Bounds()), key)
    if use == VALUE:
        return TypeAdapter(value)
    return TypeAdapter(list_type(value) if use == GRID else space_type(value, _plain(hint)))


def _value_type(field: str, hint: Any, bounds: Bounds, key: str) -> Any:
    """A field's type for pydantic, with its bounds."""

    def or_share(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        return value if share_of(value) is not None else handler(value)

    kind, be = _TYPES[_plain(hint)]
    checks = [must(be + ", or a share of the data such as 10%" * (field in SAMPLES))]
    checks += [must(f"be {bounds}", bounds.hold, key)] if bounds else []
    checks += [WrapValidator(or_share)] if field in SAMPLES else []
    return Annotated[kind | None if isinstance(hint, types.UnionType) else kind, *checks]


def share_of(value: object) -> float | None:
    """0.1 for "10%"; None for anything that is no share above 0 and up to all."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value) if isinstance(value, str) else None
    share = float(match[1]) / 100 if match else 0.0
    return share if 0 < share <= 1 else None


@functools.cache
def types_of(kind: type) -> dict[str, Any]:
    """Field → its declared type, of a dataclass; str for a Literal, whose values are among the field's bounds."""
    # Not the fields' own `type`, which may be a text.
    hints = typing.get_type_hints(kind)
    return {field.name: _without_choices(hints[field.name]) for field in dataclasses.fields(kind)}


def _without_choices(hint: Any) -> Any:
    if not literals(hint):
        return hint
    return list[str] if typing.get_origin(hint) is list else str


def _plain(hint: Any) -> type[Any]:
    """A declared type without its None."""
    if not isinstance(hint, types.UnionType):
        return hint
    return next(kind for kind in typing.get_args(hint) if kind is not type(None))
