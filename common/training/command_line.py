"""A technique script's command line: dataclasses → flags → `fit`."""

import argparse
import dataclasses
import sys
from pathlib import Path

from ..bounds import bounds_of
from ..cli import Parser, guarded
from ..errors import UserError
from ..files import read_text
from .settings import RunArgs, Technique, check, settled


def main(technique: type[Technique], argv: list[str] | None = None) -> None:
    """Parse the command line, train, and leave: 0 done, 2 the user's mistake (one line, no traceback), 130/143 interrupted."""
    sys.exit(guarded(lambda: run(technique, sys.argv[1:] if argv is None else argv)))


def run(technique: type[Technique], argv: list[str]) -> None:
    """Train as a command line says; UserError where it, or the training, cannot be carried out."""
    chosen, args = parse(technique, argv)
    # `fit` does so too, but importing it takes seconds.
    check(chosen, settled(args))
    from .fit import fit

    fit(chosen, args)


def parse(technique: type[Technique], argv: list[str]) -> tuple[Technique, RunArgs]:
    """(technique, run arguments) from flags and an optional `--config FILE.yaml` of the same names; flags win."""
    from transformers import HfArgumentParser

    import __main__

    allowed = bounds_of(RunArgs) | bounds_of(technique)

    class FieldParser(Parser, HfArgumentParser):
        def add_argument(self, *names, bounds=None, **more):
            """With the field's bounds in its help, of which a class's own field may lack those of its parent's."""
            if bounds := allowed.get(names[0].removeprefix("--")):
                more["help"] = f"{more['help']} ({bounds})"
            return super().add_argument(*names, **more)

    parser = FieldParser(
        (technique, RunArgs),
        description=__main__.__doc__,
        usage="%(prog)s [flags]",
        formatter_class=_formatter(),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="the same fields from a file; flags win over it"
    )
    values, rest = parser.parse_known_args(argv)
    if rest:
        raise UserError(f"unknown argument {rest[0]}; --help lists the flags.")
    if values.config:
        values = parser.parse_args(_read_config(Path(values.config), technique) + argv)
    fields = vars(values)
    take = lambda kind: kind(**{f.name: fields[f.name] for f in dataclasses.fields(kind)})  # noqa: E731
    return take(technique), take(RunArgs)


def _formatter():
    class Formatter(argparse.ArgumentDefaultsHelpFormatter):
        def __init__(self, prog):
            super().__init__(prog, max_help_position=34, width=110)

        def _get_help_string(self, action):
            # "(default: None)" tells nobody anything.
            return action.help if action.default is None else super()._get_help_string(action)

    return Formatter


def _read_config(file: Path, technique: type[Technique]) -> list[str]:
    """The file's fields as flags, so that they are checked and converted as flags are."""
    import yaml

    try:
        content = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise UserError(f"--config {file} is not YAML: {' '.join(str(error).split())}") from None
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
