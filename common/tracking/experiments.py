"""Which MLflow experiment a run belongs to, and how it is made."""

import os

import mlflow
from mlflow.exceptions import MlflowException

from ..errors import UserError
from . import store
from .experiment_pages import KIND, present


def experiment_id(name: str) -> str:
    """The id of the experiment of this name, which is made if it does not exist; its artifacts lie beside a local database."""
    with store.explained():
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            try:
                made = mlflow.MlflowClient().create_experiment(name, store.artifact_location(name), KIND)
                present(mlflow.get_experiment(made))
                return made
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                # Another process was quicker.
                found = mlflow.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"The MLflow experiment {name!r} is deleted: restore it (mlflow experiments restore --experiment-id "
            f"{found.experiment_id}) or choose another --experiment_name."
        )
    store.check_location(found.artifact_location)
    present(found)
    return found.experiment_id


def name_of(id_: str) -> str:
    """The name of the experiment of this id."""
    with store.explained():
        return str(mlflow.get_experiment(id_).name)


def experiment_name(name: str | None, default: str) -> str:
    """The experiment that is meant: `name`, else the one that MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID says, as for
    MLflow's own clients, else the default. UserError where the two contradict each other or there is none of this id."""
    named = os.environ.get("MLFLOW_EXPERIMENT_NAME") or None
    id_ = os.environ.get("MLFLOW_EXPERIMENT_ID") or None
    if name or not (named or id_):
        return name or default
    if named and not id_:
        return named
    with store.explained(f"MLFLOW_EXPERIMENT_ID is {id_!r}"):
        of_id = mlflow.get_experiment(id_).name
    if named and named != of_id:
        raise UserError(
            f"MLFLOW_EXPERIMENT_NAME is {named!r}, and MLFLOW_EXPERIMENT_ID {id_!r} is the experiment {of_id!r}: unset one of "
            "them, or choose with --experiment_name."
        )
    return of_id
