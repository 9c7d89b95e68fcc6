"""A stored model is run only on the code that was recorded when it was logged.

The code lies among the model's files, its fingerprint among the store's records: writing to the files alone does not
get code run. `mlflow models serve` knows nothing of the record; there the file that loads the model compares the
package beside it with its name (`serving.LOADER`).
"""

import hashlib
import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow.models import Model
from mlflow.store.artifact.utils.models import get_model_name_and_version

from .errors import UserError

TAG = "code_sha256"
"""Of a logged model."""

_LOGGED = re.compile(r"models:/(m-[0-9a-f]+)")


def record(info, package: Path, loader: Path) -> None:
    """Note on a model that was just logged (`ModelInfo`) which code it runs: the package and the file that loads it."""
    files = {f"code/{package.name}/{file.name}": file for file in package.glob("*.py")} | {"model.py": loader}
    mlflow.MlflowClient().set_logged_model_tags(info.model_id, {TAG: _fingerprint(info.flavors, files)})


def load(uri: str):
    """The model of a URI, as `mlflow.pyfunc.load_model` gives it. UserError where its code is not what was recorded."""
    copy = tempfile.TemporaryDirectory(prefix="stored-model-")
    try:
        model = mlflow.pyfunc.load_model(str(verified(uri, Path(copy.name))))
    except BaseException:
        copy.cleanup()
        raise
    # A model may read its files as long as it lives, and no longer: a page that is open for weeks loads many.
    weakref.finalize(model, copy.cleanup)
    return model


def verified(uri: str, folder: Path) -> Path:
    """A copy of a stored model, in the folder. UserError where its code is not what was recorded."""
    if not re.match(r"(models|runs):/", uri):
        raise _no_model(uri)
    stored = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    # Python would not notice that bytecode is of another source.
    for cached in list(stored.rglob("__pycache__")):
        shutil.rmtree(cached)
    flavors = Model.load(str(stored)).flavors
    model_id = _model_id(uri, stored)
    recorded = mlflow.MlflowClient().get_logged_model(model_id).tags.get(TAG)
    if recorded is None:
        raise UserError(
            f"{uri} was logged without a record of its code (by an earlier version of the suite, or by something else), so "
            "it is not run: train again, or serve it with `mlflow models serve`, which asks for no record."
        )
    files = {
        str(file.relative_to(stored)): file
        for file in [*(stored / "code").rglob("*"), stored / "model.py"]
        if file.is_file()
    }
    if _fingerprint(flavors, files) != recorded:
        raise UserError(
            f"{uri} is not run: its code (MLmodel, model.py, code/) was changed since it was logged as {model_id}. Find out by "
            "whom; then register the model of another run, or train again."
        )
    return stored


def _model_id(uri: str, stored: Path) -> str:
    """Of the logged model that a URI names; it never comes from the files alone, for those may have been changed."""
    client = mlflow.MlflowClient()
    if match := _LOGGED.match(uri):
        return match[1]
    if uri.startswith("models:/"):
        name, version = get_model_name_and_version(client, uri)
        if match := _LOGGED.match(client.get_model_version(name, version).source):
            return match[1]
    elif match := re.match(r"runs:/([0-9a-f]{32})/", uri):
        model_id = Model.load(str(stored)).model_id
        if model_id and client.get_logged_model(model_id).source_run_id == match[1]:
            return model_id
    raise _no_model(uri)


def _no_model(uri: str) -> UserError:
    return UserError(
        f"{uri} leads to no logged model of the store {mlflow.get_tracking_uri()}: write models:/NAME@ALIAS, "
        "models:/NAME/VERSION, models:/MODEL_ID or runs:/RUN_ID/model."
    )


def _fingerprint(flavors: Mapping, files: Mapping[str, Path]) -> str:
    """flavors: how MLflow loads the model (of its file MLmodel); files: path within the model → file."""
    digest = hashlib.sha256(json.dumps(flavors, sort_keys=True).encode())
    for name in sorted(files):
        content = files[name].read_bytes()
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
