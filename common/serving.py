"""How a model is logged so that MLflow serves it; what it serves is its task's (`Task.served`).

What MLflow stores is code, never a pickle: a copy of this package under a name made of its content (two versions in
one process must each answer with their own code), a short file that loads it, and the saved model as an artifact.
"""

import ast
import contextlib
import hashlib
import importlib
import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from .bundles import REFERENCE, check_base, hashes, read_bundle, read_reference
from .request_guard import guard_server
from .tasks import Task, task_of

SHARED_BASES = "shared-bases"
"""The experiment that holds the bases which adapters refer to."""

LOADER = """\
import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

from mlflow.models import set_model

if "{package}" not in sys.modules:
    (folder,) = find_spec("{package}").submodule_search_locations
    digest = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.py")):
        digest.update(file.name.encode() + b"\\0" + file.read_bytes())
    if "{package}" != f"suite_{{digest.hexdigest()[:12]}}":
        raise RuntimeError(f"{{folder}} was changed since this model was logged: its code is not run.")

from {package}.bundles import check_files
from {package}.{served} import MODEL

FILES = {files}


class Model(MODEL):
    def load_context(self, context):
        check_files(Path(context.artifacts["bundle"]), FILES)
        super().load_context(context)


set_model(Model())
"""
"""What MLflow runs to load a model. FILES: path within the saved model → sha256."""

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
)


def fetch(context) -> tuple[Path, str | None]:
    """(saved model, its base) for MLflow's context; an adapter's shared base is fetched from the store where it is not inside."""
    guard_server()
    bundle = Path(context.artifacts["bundle"])
    reference = read_reference(bundle)
    if reference is None:
        return bundle, None
    base = mlflow.artifacts.download_artifacts(reference["uri"])
    check_base(Path(base), read_bundle(bundle).base_fingerprint)
    return bundle, base


class Refusal(MlflowException):
    """A bad request and the reason, which stays as it is: MLflow's server would put the whole request before it."""

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(reason, INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        return self.reason

    @message.setter
    def message(self, _):
        pass


def refuse(reason: str):
    """Answer 400 with this reason."""
    raise Refusal(reason)


def log_model(
    run,
    bundle: Path,
    base: Path | None,
    example: Mapping[str, str],
    metrics: Mapping[str, float],
    at: int | None = None,
) -> str:
    """Log a saved model into a run, in the place of one that the run has; returns "models:/<id>".

    base: the folder of an adapter's base. It is kept once in the store, by fingerprint, and the model refers to it.
    at: when the metrics were measured, in milliseconds since 1970; default: now.
    """
    forget_models(run.id, "model")
    if base is not None:
        fingerprint = read_bundle(bundle).base_fingerprint
        reference = {"uri": shared_base(base, fingerprint), "fingerprint": fingerprint}
        (bundle / REFERENCE).write_text(json.dumps(reference) + "\n")
    info = log_bundle(bundle, example, run_id=run.id, name="model")
    run.log_metrics(metrics, model_id=info.model_id, at=at)
    return info.model_uri


def forget_models(run_id: str, name: str) -> None:
    """Delete a run's logged models of this name: what a process left that was killed before it was done with them."""
    client = mlflow.MlflowClient()
    left = client.search_logged_models(
        [client.get_run(run_id).info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' AND name = '{name}'",
    )
    for model in left:
        # A team's server lets people write into each other's runs, not delete from them.
        with contextlib.suppress(MlflowException):
            client.delete_logged_model(model.model_id)


def shared_base(base: Path, fingerprint: str) -> str:
    """The store's one copy of a base, logged if it is not there yet; returns "runs:/<id>/base"."""
    from . import experiments, store, stored_code

    experiment = experiments.experiment(SHARED_BASES)
    client = mlflow.MlflowClient()
    with store.lock(f"base-{fingerprint[:16]}"):
        found = client.search_runs([experiment], f"tags.base_fingerprint = '{fingerprint}'")
        done = [run for run in found if run.info.status == "FINISHED"]
        if done:
            return f"runs:/{done[0].info.run_id}/base"
        # One that was left unfinished is completed.
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
):
    """Log a saved model into a run, finished or not, with its code, signature, example and pinned requirements.

    served: the module that serves it, by default its task's. Returns MLflow's ModelInfo. The run's status and times stay as they are.
    """
    from . import stored_code
    from .scratch import scratch

    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    about = read_bundle(bundle) if served is None else None
    served = served or task_of(about.task).served
    module = importlib.import_module(f".{served}", __package__)
    packages = REQUIREMENTS if about is None or about.runtime == "torch" else (*REQUIREMENTS, "onnxruntime")
    # Made here, as MLflow would put the model of a run that is not active into the default experiment.
    logged = client.create_logged_model(
        run.info.experiment_id, name=name, source_run_id=run_id, params=run.data.params
    )
    with scratch() as folder:
        package = copy_of_package(folder, served)
        loader = folder / "model.py"
        loader.write_text(LOADER.format(package=package.name, served=served, files=hashes(bundle)))
        # MLflow runs the loader once to check it, before the code is where the logged model will have it.
        sys.path.insert(0, str(folder))
        try:
            # `mlflow.pyfunc.log_model` is this call without `run_id`.
            info = Model.log(
                artifact_path=None,
                name=name,
                flavor=mlflow.pyfunc,
                run_id=run_id,
                model_id=logged.model_id,
                python_model=str(loader),
                code_paths=[str(package)],
                artifacts={"bundle": str(bundle)},
                signature=module.SIGNATURE,
                model_config=getattr(module, "CONFIG", None),
                input_example=(pd.DataFrame([example]), module.EXAMPLE_PARAMETERS),
                pip_requirements=[f"{needed}=={version(needed).split('+')[0]}" for needed in packages],
            )
            stored_code.record(info.model_id)
            return info
        finally:
            sys.path.remove(str(folder))


def module_of(task: Task):
    """The module that serves a task."""
    return importlib.import_module(f".{task.served}", __package__)


def copy_of_package(folder: Path, served: str) -> Path:
    """The module that serves and what it needs, as a package named by their content: `suite_<sha256, 12 digits>`."""
    files = _needed_modules(served)
    package = folder / name_of(files)
    package.mkdir()
    for file in files:
        shutil.copy(file, package / file.name)
    return package


def name_of(files: Iterable[Path]) -> str:
    """What a package of these modules is called; LOADER computes the same."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return f"suite_{digest.hexdigest()[:12]}"


def _needed_modules(served: str) -> set[Path]:
    """A module and what it imports from the package, directly or not; imports within functions serve logging only."""
    here = Path(__file__)
    found, left = {here.with_name("__init__.py")}, [here.with_name(f"{served}.py")]
    while left:
        file = left.pop()
        if file not in found:
            found.add(file)
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ImportFrom) and node.level:
                    names = [node.module] if node.module else [alias.name for alias in node.names]
                    left += [here.with_name(f"{name}.py") for name in names]
    return found
