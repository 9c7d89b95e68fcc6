"""What is called after the data: the MLflow experiment, the registered model and the folder of prepared data.

Data that was given a name (`prepare_data.py --name`) gives it to all three; else they are called after the task.
"""

import re
from collections.abc import Mapping

from ..errors import UserError
from .interface import Task

TAG = "data_called"
"""Tag of runs and versions: the name that was given to their data."""

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


def experiment(task: Task, called: str) -> str:
    """The MLflow experiment of runs on data with this name; empty: without one."""
    return called or task.experiment


def registered(task: Task, tags: Mapping[str, str]) -> str:
    """The registered model of runs or versions with these tags."""
    called = tags.get(TAG)
    return f"{called}{task.suffix}" if called else task.registered


def folder(called: str, default: str) -> str:
    """The folder of the project that data with this name is prepared in; default: the one without a name."""
    return f"{called}_data" if called else default
