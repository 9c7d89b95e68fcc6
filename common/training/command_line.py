"""A technique script's command line: dataclasses → flags → `fit`."""

import argparse
import dataclasses
import shlex
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bounds import Bounds, bounds_of
from ..cli import Parser, guarded, importing
from ..errors import UserError
from ..files import read_yaml
from ..paths import interpreter
from .refusals import check
from .settings import GROUPS, RunArgs, Technique, settled


def main(technique: type[Technique], argv: list[str] | None = None) -> None:
    """Parse the command line, train, and leave: 0 done, 2 the user's mistake (one line, no traceback), 130/143 interrupted."""
    sys.exit(guarded(lambda: run(technique, sys.argv[1:] if argv is None else argv)))


def run(technique: type[Technique], argv: list[str]) -> None:
    """Train as a command line says; UserError where it, or the training, cannot be carried out."""
    chosen, args = parse(technique, argv)
    # `fit` does so too, but importing it takes seconds.
    check(chosen, settled(args))
    with importing():
        from .fit import fit

    fit(chosen, args)


def parse(technique: type[Technique], argv: list[str]) -> tuple[Technique, RunArgs]:
    """(technique, run arguments) from flags and an optional `--config FILE.yaml` of the same names; flags win."""
    parser = _parser(technique)
    argv = [_underscored(word) for word in argv]
    values, rest = parser.parse_known_args(argv)
    if rest:
        raise UserError(f"unknown argument {rest[0]}; --help lists the flags.")
    if values.config:
        values = parser.parse_args(_read_config(Path(values.config), technique) + argv)
    given = vars(values)
    own, shared = ({f.name: given[f.name] for f in dataclasses.fields(kind)} for kind in (technique, RunArgs))
    return technique(**own), RunArgs(**shared)


def _underscored(word: str) -> str:
    """--batch-size is taken for --batch_size."""
    flag, equals, value = word.partition("=")
    return flag[:2] + flag[2:].replace("-", "_") + equals + value if flag.startswith("--") else word


def _parser(technique: type[Technique]) -> argparse.ArgumentParser:
    import __main__

    parser = Parser(
        description=__main__.__doc__,
        usage="%(prog)s [flags]",
        epilog=_example(technique),
        formatter_class=_Formatter,
    )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="the same fields from a file; flags win over it"
    )
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for kind in (technique, RunArgs):
        bounds, types = bounds_of(kind), typing.get_type_hints(kind)
        for field in _own_first(kind):
            by_size = f"by the size of the model: {technique.rates}" if _is_by_size(field) else ""
            group = groups[field.metadata["group"]]
            _add(group, field, types[field.name], bounds.get(field.name, Bounds()), by_size)
    return parser


def add_fields(parser: argparse.ArgumentParser, kind: type, names: Sequence[str]) -> None:
    """Add the flags of some fields of a dataclass, with the help and the default that they were declared with. `check_bounds`
    refuses what is out of bounds."""
    bounds, types = bounds_of(kind), typing.get_type_hints(kind)
    declared = {field.name: field for field in dataclasses.fields(kind)}
    for name in names:
        _add(parser, declared[name], types[name], bounds.get(name, Bounds()), "")


def _is_by_size(field: dataclasses.Field) -> bool:
    """Whether a field's default is one of a technique's `rates`."""
    return field.name == "learning_rate" and field.default is None


def _add(group: Any, field: dataclasses.Field, declared: Any, bounds: Bounds, otherwise: str) -> None:
    """Add the flag of a field. Choices and other bounds are shown here, and checked where all values are (`check`).

    otherwise: the default in words, where it is no value of the field.
    """
    kind = _kind(declared)
    many = typing.get_origin(declared) is list
    default: Any = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    flags: dict[str, Any] = {"nargs": "+"} if many else {}
    if kind is bool:
        flags = {"nargs": "?", "const": True}
    if bounds.choices:
        metavar = "{" + ",".join(map(str, bounds.choices)) + "}"
    else:
        metavar = {int: "N", float: "X", bool: "true|false"}.get(kind, "TEXT")
    notes = [] if bounds.choices or not bounds else [_shown(bounds)]
    if otherwise:
        notes.append(f"default {otherwise}")
    elif default is not None and default is not False and default != "":
        notes.append(f"default: {' '.join(default) if many else default}")
    text = field.metadata["help"] + (f" ({'; '.join(notes)})" if notes else "")
    group.add_argument(
        f"--{field.name}",
        type=_truth if kind is bool else kind,
        default=default,
        metavar=metavar,
        help=text.replace("%", "%%"),
        **flags,
    )


def _kind(declared: Any) -> type:
    """The type that a flag's value is converted to: a list's or an optional's is that of its values."""
    origin, parts = typing.get_origin(declared), typing.get_args(declared)
    if origin is typing.Literal:
        return type(parts[0])
    if parts:
        return _kind(next(part for part in parts if part is not type(None)))
    return declared


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "yes", "1")


def _shown(bounds: Bounds) -> str:
    """Bounds in words, without a maximum that is far from what anybody uses."""
    far = bounds.maximum is not None and bounds.maximum >= 10**6
    return str(dataclasses.replace(bounds, maximum=None) if far else bounds)


def _example(technique: type[Technique]) -> str:
    """What could be typed, with the first of the technique's own fields."""
    shown = _own_first(technique)[0]
    script = shlex.join([interpreter(), sys.argv[0]])
    default = technique.rates.small.value if _is_by_size(shown) else shown.default
    return (
        "example, on the packaged model and 1,000 questions:\n"
        f"  {script} --model_checkpoint embedded --max_train_samples 1000 --{shown.name} {default or 'FILE'}"
    )


def _own_first(kind: type) -> list[dataclasses.Field]:
    """A dataclass's fields: a technique's own ones before those that every technique has."""
    shared = {field.name for field in dataclasses.fields(Technique)}
    return sorted(dataclasses.fields(kind), key=lambda field: field.name in shared)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=110)


def _read_config(file: Path, technique: type[Technique]) -> list[str]:
    """The file's fields as flags, so that they are checked and converted as flags are."""
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"--config {file} must hold 'name: value' lines.")
    known = {f.name for kind in (technique, RunArgs) for f in dataclasses.fields(kind)}
    argv = []
    for name, value in content.items():
        if name not in known:
            raise UserError(
                f"--config {file}: {name!r} is no field of {technique.__name__}; --help lists them."
            )
        if isinstance(value, dict):
            raise UserError(f"--config {file}: {name} must be a single value.")
        if value is not None:
            values = value if isinstance(value, list) else [value]
            argv += [f"--{name}", *map(str, values)]
    return argv
