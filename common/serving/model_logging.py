"""How a model is logged so that MLflow can serve it; the task names the module that answers (`Task.served`).

MLflow stores code, never a pickle: a copy of this package under a name derived from its content (two versions in one
process must each answer with their own code), a short file that loads it, and the saved model as an artifact.
"""

import contextlib
import importlib
import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.model import ModelInfo

from ..models.bundles import REFERENCE, hashes, opener, read_bundle
from ..tasks.interface import Task
from ..tasks.table import task_of
from .packaging import LOADER, copy_of_package

if TYPE_CHECKING:
    from ..tracking.runs import Run

SHARED_BASES = "shared-bases"
"""The experiment that holds the bases that adapters refer to."""

REQUIREMENTS = (
    "mlflow",
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "numpy",
    "pandas",
    "regex",
    "tqdm",
    "prometheus-client",
)


def log_model(
    run: "Run",
    bundle: Path,
    base: Path | None,
    example: Mapping[str, str],
    metrics: Mapping[str, float],
    at: int | None = None,
) -> str:
    """Log a saved model into a run, in place of the one that the run may have; returns "models:/<id>".

    base: the folder of an adapter's base. The store holds it once, by fingerprint, and the model refers to it.
    at: when the metrics were measured, in milliseconds since 1970; default: now.
    """
    forget_models(run.id, "model")
    if base is not None:
        refer(bundle, base)
    info = log_bundle(bundle, example, run_id=run.id, name="model")
    run.log_metrics(metrics, model_id=info.model_id, at=at)
    return info.model_uri


def look_at_packages() -> None:
    """Have MLflow find out which packages are installed, as it does in each process before it logs the first model, and whether
    it runs in a notebook, as it does before the first run."""
    from mlflow.utils.databricks_utils import is_running_in_ipython_environment
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

    is_running_in_ipython_environment()
    warn_dependency_requirement_mismatches([f"mlflow=={version('mlflow')}"])


def refer(bundle: Path, base: Path) -> None:
    """Let a saved model name the store's copy of its base, which is stored if it is not there yet."""
    fingerprint = read_bundle(bundle).base_fingerprint
    reference = {"uri": shared_base(base, fingerprint), "fingerprint": fingerprint}
    (bundle / REFERENCE).write_text(json.dumps(reference) + "\n")


def forget_models(run_id: str, name: str) -> None:
    """Delete a run's logged models of this name, which a killed process may have left."""
    client = mlflow.MlflowClient()
    left = client.search_logged_models(
        [client.get_run(run_id).info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' AND name = '{name}'",
    )
    for model in left:
        # A team's server lets people write into each other's runs, but not delete from them.
        with contextlib.suppress(MlflowException):
            client.delete_logged_model(model.model_id)


def shared_base(base: Path, fingerprint: str) -> str:
    """The store's one copy of a base, logged if it is not there yet; returns "runs:/<id>/base"."""
    from ..tracking import experiments, store
    from . import stored_code

    experiment = experiments.experiment_id(SHARED_BASES)
    client = mlflow.MlflowClient()
    with store.lock(f"base-{fingerprint[:16]}"):
        found = client.search_runs([experiment], f"tags.base_fingerprint = '{fingerprint}'")
        done = [run for run in found if run.info.status == "FINISHED"]
        if done:
            return f"runs:/{done[0].info.run_id}/base"
        # An unfinished one is completed.
        run = (
            found[0]
            if found
            else client.create_run(
                experiment, run_name=f"base {fingerprint[:12]}", tags={"base_fingerprint": fingerprint}
            )
        )
        for key, value in stored_code.as_tags(hashes(base)).items():
            client.set_tag(run.info.run_id, key, value)
        client.log_artifacts(run.info.run_id, str(base), "base")
        client.set_terminated(run.info.run_id)
        return f"runs:/{run.info.run_id}/base"


def log_bundle(
    bundle: Path, example: Mapping[str, str], *, run_id: str, name: str, served: str | None = None
) -> ModelInfo:
    """Log a saved model into a run, finished or not, with its code, signature, example and pinned requirements.

    served: the module of this package that serves it, by default its task's. The run's status and times do not change.
    """
    from ..scratch import scratch
    from . import stored_code

    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    # Adapters of any kind may answer side by side.
    opens = [opener(bundle)] if served is None else ["virtual_tokens", "methods", "peft_corrections"]
    served = served or task_of(read_bundle(bundle).task).served
    module = importlib.import_module(f"..{served}", __package__)
    modules = [served, *(f"models.{name}" for name in opens if name)]
    packages = (*REQUIREMENTS, "onnxruntime") if "onnx" in opens else REQUIREMENTS
    # Created here, because MLflow would put the model of a run that is not active into the default experiment.
    logged = client.create_logged_model(
        run.info.experiment_id, name=name, source_run_id=run_id, params=run.data.params
    )
    with scratch() as folder:
        package = copy_of_package(folder, modules)
        loader = folder / "model.py"
        loader.write_text(LOADER.format(package=package.name, served=served, files=hashes(bundle)))
        # MLflow runs the loader once to check it, before the code is in its place in the logged model.
        sys.path.insert(0, str(folder))
        try:
            # `mlflow.pyfunc.log_model` is this call without `run_id`, and with a check of the example.
            info = Model.log(
                artifact_path=None,
                name=name,
                flavor=_Unasked,
                validate_serving_input=False,
                run_id=run_id,
                model_id=logged.model_id,
                python_model=str(loader),
                code_paths=[str(package)],
                artifacts={"bundle": str(bundle)},
                signature=module.signature(example) if hasattr(module, "signature") else module.SIGNATURE,
                model_config=getattr(module, "CONFIG", None),
                input_example=(pd.DataFrame([example]), module.EXAMPLE_PARAMETERS),
                pip_requirements=[f"{needed}=={version(needed).split('+')[0]}" for needed in packages],
            )
            # MLflow has imported some of it, from the copy that is removed here.
            stored_code.import_all(folder)
            stored_code.record(info.model_id)
            return info
        finally:
            sys.path.remove(str(folder))


class _Unasked:
    """The flavor pyfunc for a model that MLflow does not load and ask where it is logged. Its answer would be thrown away and its
    failure a warning, and a second copy of the weights would lie beside those that were trained: a model is asked in a process
    of its own before it is promoted."""

    @staticmethod
    def save_model(validate_serving_input: bool, **given: Any) -> None:
        mlflow.pyfunc.save_model(**given)


def module_of(task: Task) -> ModuleType:
    """The module that serves a task."""
    return importlib.import_module(f"..{task.served}", __package__)
