"""Fields as a study's file gives them → values of the types that the techniques declare."""

import dataclasses
import difflib
import functools
import re
import types
import typing
from typing import NamedTuple

from ..bounds import Bounds, bounds_of, literals
from ..errors import UserError
from ..training.settings import RunArgs
from . import search

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
    "resume": "a study always goes on where it was",
    "skip_finished": "a study never repeats finished runs",
}
_FIXED = ("task", "experiment_name", "data_dir")


class Declared(NamedTuple):
    """What is known of a field: its type, the values that it may have, and whose it is (a technique's key)."""

    type: object
    bounds: Bounds
    owner: str


def check_keys(content, keys, where) -> None:
    """UserError for a key that is none of these, or content that has no keys; where: its place in the file."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: must hold 'name: value' lines.")
    for key in content:
        if key not in keys:
            raise UserError(f"{where}: there is no {key!r} here{_like(str(key), keys)}.")


def techniques_of(declared, where, techniques) -> dict[str, dict]:
    """Technique key → its own fields, of a list of keys or a mapping; techniques: key → class, all that there are."""
    if isinstance(declared, list):
        declared = {key: {} for key in declared}
    if declared is None:
        return {}
    if not isinstance(declared, dict):
        raise UserError(f"{where}: `techniques` must be a list of techniques, or map each to its fields.")
    for key, fields in declared.items():
        if key not in techniques:
            raise UserError(
                f"{where}, techniques: there is no {key!r}{_like(key, techniques)}; there are {', '.join(techniques)}."
            )
        if not isinstance(fields or {}, dict):
            raise UserError(f"{where}, techniques, {key}: must hold 'field: value' lines.")
    return {key: fields or {} for key, fields in declared.items()}


def values(declared, where, kinds, key) -> dict:
    """Field → value of the type that the technique of this key declares, of fields that all the kinds (key → class) have."""
    if not isinstance(declared or {}, dict):
        raise UserError(f"{where}: must hold 'field: value' lines.")
    return {
        field: _value(value, field, _declared(field, where, kinds, key), where)
        for field, value in (declared or {}).items()
    }


def grid(declared, where, kinds, key) -> dict[str, list]:
    """Axis → its values, of their declared type."""
    if not isinstance(declared or {}, dict):
        raise UserError(f"{where}: must hold 'field: [values]' lines.")
    found = {}
    for axis, values in (declared or {}).items():
        if axis in _FIXED:
            raise UserError(f"{where}: {axis} cannot vary within a study; set it in `base`.")
        found[axis] = listed(values, axis, _declared(axis, where, kinds, key), where)
    return found


def spaces(declared, where, kinds, key) -> dict[str, search.Space]:
    """Axis → the values that may be proposed for it."""
    if not isinstance(declared or {}, dict):
        raise UserError(f"{where}: must hold 'field: {{kind: [values]}}' lines.")
    found = {}
    for axis, space in (declared or {}).items():
        if axis in _FIXED:
            raise UserError(f"{where}: {axis} cannot vary within a study; set it in `base`.")
        declared_as = _declared(axis, where, kinds, key)
        convert = functools.partial(_value, field=axis, declared=declared_as, where=where)
        found[axis] = search.space(space, axis, _plain(declared_as.type), convert, where)
    return found


def seeds(values, where) -> tuple[int, ...]:
    """A study's seeds, at least one and each once."""
    return tuple(listed(values, "seed", Declared(int, bounds_of(RunArgs)["seed"], ""), where))


def listed(values, field, declared, where) -> list:
    """A field's values, at least one and each once, as it is `Declared`."""
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: {field} is {values!r}; it must be a list of at least one value.")
    found = [_value(value, field, declared, where) for value in values]
    if len({shown(value) for value in found}) < len(found):
        raise UserError(f"{where}: {field} lists a value twice: {values}.")
    return found


def share_of(value) -> float | None:
    """0.1 for "10%"; None for anything that is no share above 0 and up to all."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value) if isinstance(value, str) else None
    share = float(match[1]) / 100 if match else 0.0
    return share if 0 < share <= 1 else None


def shown(value) -> str:
    """A field's value as tables, names and sentences have it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def types_of(kind) -> dict:
    """Field → its declared type, of a dataclass; str for a Literal, whose values are among the field's bounds."""
    # Not the fields' own `type`, which may be a text.
    hints = typing.get_type_hints(kind)
    return {field.name: _without_choices(hints[field.name]) for field in dataclasses.fields(kind)}


def _without_choices(hint):
    if not literals(hint):
        return hint
    return list[str] if typing.get_origin(hint) is list else str


def _declared(field, where, kinds, key) -> Declared:
    """What is known of a field that every one of these techniques must have."""
    if field in _OF_THE_STUDY:
        raise UserError(f"{where}: {field} is not for a row to set: {_OF_THE_STUDY[field]}.")
    run = types_of(RunArgs)
    if field in run:
        return Declared(run[field], bounds_of(RunArgs).get(field, Bounds()), key)
    have = [k for k, kind in kinds.items() if field in types_of(kind)]
    if not have:
        known = [name for kind in kinds.values() for name in types_of(kind)] + list(run)
        raise UserError(
            f"{where}: no field is called {field!r}{_like(field, known)}; the scripts' --help lists them."
        )
    if missing := [k for k in kinds if k not in have]:
        raise UserError(
            f"{where}: {missing[0]} has no field {field!r}; set it below `techniques`, {' and '.join(have)}."
        )
    return Declared(types_of(kinds[key])[field], bounds_of(kinds[key]).get(field, Bounds()), key)


def _value(value, field, declared: Declared, where):
    """A value of the declared type and within its bounds."""
    found = _typed(value, field, declared.type, where)
    is_share = field in SAMPLES and isinstance(found, str)
    if declared.bounds and not is_share and not declared.bounds.hold(found):
        owner = f" for {declared.owner}" if declared.owner else ""
        raise UserError(f"{where}: {field} is {value!r}{owner}; it must be {declared.bounds}.")
    return found


def _typed(value, field, declared, where):
    """A value of the declared type; a whole number is a float too, and YAML takes 1e-3 for a text."""
    optional, kind = isinstance(declared, types.UnionType), _plain(declared)
    if optional and value is None or kind is not float and type(value) is kind:
        return value
    if field in SAMPLES and share_of(value) is not None:
        return value
    if typing.get_origin(kind) is list:
        (element,) = typing.get_args(kind)
        if isinstance(value, list) and all(type(each) is element for each in value):
            return value
        raise UserError(f"{where}: {field} is {value!r}; it must be a list.")
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (OverflowError, TypeError, ValueError):
            pass
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
    share = ", or a share of the data such as 10%" if field in SAMPLES else ""
    raise UserError(f"{where}: {field} is {value!r}; it must be {wanted}{share}.")


def _plain(declared) -> type:
    """A declared type without its None."""
    if not isinstance(declared, types.UnionType):
        return declared
    return next(kind for kind in typing.get_args(declared) if kind is not type(None))


def _like(word: str, known) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
