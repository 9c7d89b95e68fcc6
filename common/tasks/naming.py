"""What is called after the data: the MLflow experiment and the registered model.

Data that was given a name (`prepare_data.py --name`) gives it to both; else they are called after the task.
"""

from collections.abc import Mapping

from .interface import Task

TAG = "data_called"
"""Tag of runs and versions: the name that was given to their data."""


def experiment(task: Task, called: str) -> str:
    """The MLflow experiment of runs on data with this name; empty: without one."""
    return called or task.experiment


def registered(task: Task, tags: Mapping[str, str]) -> str:
    """The registered model of runs or versions with these tags."""
    called = tags.get(TAG)
    return f"{called}{task.suffix}" if called else task.registered
