"""A finished run of the store, as merging and reproducing read it: what it has logged of itself, and the data it was trained from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import prepared
from ..data.record import DataRecord
from ..errors import UserError, first_line
from ..files import read_yaml
from ..tracking import runs

CONFIG = "config.yaml"
"""The artifact that holds every setting of a run."""


@dataclass(frozen=True)
class LoggedRun:
    """What a finished run has logged."""

    run_id: str
    experiment_id: str
    tags: dict[str, str]
    metrics: dict[str, float]
    config: dict[str, Any]
    """Every setting."""


def read(run_id: str, folder: Path) -> LoggedRun:
    """A run of the store; its settings are copied into a folder. UserError where it is not finished or was logged otherwise."""
    held = runs.recorded(run_id)
    if held is None:
        raise UserError(
            f"Run {run_id} is not in the store: name runs by their ids (the last line of a training shows its id)."
        )
    if held["status"] != "FINISHED" or "technique" not in held["tags"]:
        raise UserError(
            f"Run {run_id} is {held['status']} or no training of this suite: name a finished one."
        )
    runs.download(run_id, [CONFIG], folder)
    try:
        config = dict(read_yaml(folder / CONFIG))
    except (UserError, ValueError, TypeError) as error:
        raise UserError(
            f"Run {run_id} has no readable {CONFIG} ({first_line(error)}): train it again."
        ) from None
    return LoggedRun(run_id, held["experiment_id"], held["tags"], held["metrics"], config)


def data_record(folder: str, run_id: str, named: bool) -> DataRecord:
    """The record of the prepared data in a folder. UserError where there is none: a training would make it, and not from what
    the run was trained on. named: whether the user named the folder, and not the run."""
    try:
        return prepared.load(folder)[1]
    except UserError as error:
        if named:
            raise
        raise UserError(f"{error} Run {run_id} was trained from it: name the data with --data_dir.") from None
