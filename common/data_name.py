"""The name that people give their data (`prepare_data.py --name`): that of its folder, its experiment and its registered model."""

import re

from .errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


def is_name(text: str) -> bool:
    """Whether data can be called so."""
    return bool(_NAME.fullmatch(text))


def check_name(name: str) -> str:
    """The name, if an experiment, a registered model and a folder can have it; else UserError."""
    if not is_name(name):
        raise UserError(
            f"--name {name!r}: use at most 60 letters, digits, '-', '_' and '.', a letter or a digit first, such as ag-news."
        )
    return name


def folder(name: str, default: str) -> str:
    """The folder of the project that data is prepared in; name: "" for data without one. default: its folder then."""
    return f"{name}_data" if name else default
