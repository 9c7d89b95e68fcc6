"""A stored model is loaded only from the files that were recorded when it was logged: code, weights, everything.

The store's artifacts hold the files and its records their sha256: a change of the artifacts alone changes no answer and
runs no code. `mlflow models serve` does not know the record. There the file that loads the model compares the package
beside it with its name, and the saved model with the digests that it holds itself (`packaging.LOADER`).
"""

import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel
from mlflow.store.artifact.utils.models import get_model_name_and_version

from ..errors import UserError, first_line
from ..models.bundles import difference, fingerprint, hashes, read_reference
from ..scratch import own_folder, scratch

CODE = "code_sha256"
"""Tag of a logged model: the sha256 of its code. Models logged by earlier versions of the suite have no other record."""

FILES = "files_sha256"
"""Tags of a logged model and of a base's run, FILES_0, FILES_1, ...: path within it → sha256, as JSON in pieces."""

BASE_FOLDER = "base"
"""Of a saved model, with the base inside."""

BASE = "base_fingerprint"
"""Tag of a logged model, of the run that it belongs to and of a base's run."""

PIECE = 5_000
"""Characters; MLflow allows a tag 8,000."""

_OPENING = threading.Lock()
"""Held while MLflow opens a model: the code of a model hands it over in one variable of MLflow's."""

_LOGGED = re.compile(r"models:/(m-[0-9a-f]+)$")
_RUN = re.compile(r"runs:/([0-9a-f]{32})/([^/]+)$")


def record(model_id: str) -> None:
    """Record on a model that was just logged the sha256 of each of its files, and which base it needs."""
    client = MlflowClient()
    with scratch() as folder:
        stored = _downloaded(f"models:/{model_id}", folder)
        tags = as_tags(hashes(stored))
        if reference := read_reference(stored / "artifacts" / "bundle"):
            tags[BASE] = reference["fingerprint"]
    client.set_logged_model_tags(model_id, tags)


def as_tags(files: Mapping[str, str]) -> dict[str, str]:
    """Path → sha256 as tags."""
    text = json.dumps(files, sort_keys=True, separators=(",", ":"))
    return {f"{FILES}_{i}": text[start : start + PIECE] for i, start in enumerate(range(0, len(text), PIECE))}


def from_tags(tags: Mapping[str, str]) -> dict[str, str] | None:
    """Path → sha256 from the tags that `as_tags` made; None if nothing was recorded."""
    pieces: list[str] = []
    while (name := f"{FILES}_{len(pieces)}") in tags:
        pieces.append(tags[name])
    return json.loads("".join(pieces)) if pieces else None


class Bases:
    """The verified bases of models that are loaded: a further adapter of one takes it from there, and not from the store."""

    def __init__(self) -> None:
        self._held: list[tuple[weakref.ref[PyFuncModel], str, Path]] = []

    def add(self, model: PyFuncModel, wanted: str, base: Path) -> None:
        """A loaded model, and the folder with its base, which has this fingerprint."""
        self._held = [each for each in self._held if each[0]() is not None]
        self._held.append((weakref.ref(model), wanted, base))

    def bring(self, wanted: str, place: Path) -> bool:
        """Put the base of this fingerprint there; False if no loaded model has it."""
        for reference, fingerprint_, base in list(self._held):
            # While it is held, its files stay.
            model = reference()
            if model is not None and fingerprint_ == wanted:
                shutil.copytree(base, place, copy_function=_linked, dirs_exist_ok=True)
                return True
        return False


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def load(
    uri: str, called: str = "", config: Mapping | None = None, bases: Bases | None = None
) -> PyFuncModel:
    """The model of a URI, as `mlflow.pyfunc.load_model` gives it. called: its name in messages; default: the URI. config: its
    `model_config`. bases: where its base may be, and where it is noted.

    UserError if a file is not what was recorded, or the model does not load.
    """
    called = called or uri
    folder, release = own_folder()
    try:
        copy, wanted = _copied(uri, folder, called, bases)
        stored = str(copy)
        with _OPENING:
            model = _opened(stored, config)
        import_all(Path(stored) / "code")
    except (MlflowException, UserError):
        release()
        raise
    except Exception as error:
        release()
        raise UserError(
            f"{called} does not load: {type(error).__name__}: {first_line(error)}"[:500]
        ) from error
    except BaseException:
        release()
        raise
    # A model may read its files while it exists, and they must not stay longer: a page that is open for weeks loads many.
    weakref.finalize(model, _remove, release, str(Path(stored) / "code"))
    if bases is not None and wanted is not None:
        bases.add(model, wanted, copy / "artifacts" / "bundle" / BASE_FOLDER)
    return model


def _opened(stored: str, config: Mapping | None) -> PyFuncModel:
    """What MLflow makes of a verified copy; where it fails, nothing refers to the copy any more."""
    code = str(Path(stored) / "code")
    try:
        return mlflow.pyfunc.load_model(stored, model_config=dict(config) if config else None)
    except BaseException:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(stored + os.sep):
                del sys.modules[name]
        _forget(code)
        raise
    finally:
        # Where the code of a model has put it for MLflow, which would keep it until it opens another.
        setattr(mlflow.models.model, "__mlflow_model__", None)  # noqa: B010


def import_all(code: Path) -> None:
    """Import what the package of a stored model holds: another model may have the same package, and need a module of it
    when this copy is gone."""
    for file in sorted(code.glob("suite_*/**/*.py")):
        # What is optional may be missing, as it was when the model was opened.
        with contextlib.suppress(ImportError):
            importlib.import_module(
                ".".join(file.relative_to(code).with_suffix("").parts).removesuffix(".__init__")
            )


def _remove(release: Callable[[], None], code: str) -> None:
    """Remove the copy of a model, and where MLflow told Python to look for its code."""
    _forget(code)
    release()


def _forget(code: str) -> None:
    while code in sys.path:
        sys.path.remove(code)


def logged_model_of(uri: str) -> LoggedModel:
    """The logged model that a URI leads to, as the store has it; UserError where it leads to none."""
    if not re.match(r"(models|runs):/", uri):
        raise _no_model(uri)
    client = mlflow.MlflowClient()
    return client.get_logged_model(_model_id(client, uri))


def with_version(uri: str) -> str:
    """models:/NAME@ALIAS as models:/NAME/VERSION, which stays the same model when the alias moves; any other URI as it is."""
    if not uri.startswith("models:/") or _LOGGED.match(uri):
        return uri
    name, version = get_model_name_and_version(mlflow.MlflowClient(), uri)
    return f"models:/{name}/{version}"


def verified(uri: str, folder: Path, called: str = "") -> Path:
    """A copy of a stored model, in the folder, with its base inside. called: its name in messages; default: the URI.

    UserError names the file of the model, or of the base that it refers to, that is not what was recorded.
    """
    return _copied(uri, folder, called)[0]


def _copied(uri: str, folder: Path, called: str, bases: Bases | None = None) -> tuple[Path, str | None]:
    """(a verified copy of a stored model with its base inside, the fingerprint of the base that it refers to; None if it refers
    to none). bases: of models that are loaded."""
    if not re.match(r"(models|runs):/", uri):
        raise _no_model(uri)
    client = MlflowClient()
    model_id = _model_id(client, uri)
    uri = called or uri
    logged = client.get_logged_model(model_id)
    stored = _downloaded(f"models:/{model_id}", folder / "model", uri)
    recorded = from_tags(logged.tags)
    if recorded is not None:
        if found := difference(hashes(stored), recorded):
            raise UserError(
                f"{uri} is not loaded: its file {found} since it was logged as {model_id}. Find out who changed it; then register "
                "the model of another run, or train again."
            )
        wanted = logged.tags.get(BASE)
    else:
        _check_code(uri, model_id, logged.tags, stored)
        run = client.get_run(logged.source_run_id) if logged.source_run_id else None
        wanted = run and run.data.tags.get(BASE)
    return stored, _bring_base(client, uri, stored / "artifacts" / "bundle", wanted, folder / "base", bases)


def _bring_base(
    client: MlflowClient, uri: str, bundle: Path, wanted: str | None, folder: Path, bases: Bases | None
) -> str | None:
    """Put the base that a saved model refers to inside it; its fingerprint, or None if it refers to none."""
    try:
        reference = read_reference(bundle)
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{uri} is not loaded: its base.json is damaged.") from None
    if reference is None:
        return None
    match = _RUN.fullmatch(str(reference["uri"]))
    if match is None or wanted is None or reference["fingerprint"] != wanted:
        raise UserError(
            f"{uri} is not loaded: its base.json refers to another base than the store says. Find out who changed it; then "
            "train again."
        )
    shutil.rmtree(bundle / BASE_FOLDER, ignore_errors=True)
    if bases is not None and bases.bring(wanted, bundle / BASE_FOLDER):
        (bundle / "base.json").unlink()
        return wanted
    base = _downloaded(reference["uri"], folder, f"The base {reference['uri']} of {uri}")
    if fingerprint(base) != wanted or any(entry.is_dir() for entry in base.iterdir()):
        listed = from_tags(client.get_run(match[1]).data.tags)
        found = listed and difference(hashes(base), listed)
        raise UserError(
            f"{uri} is not loaded: the shared base {reference['uri']} was changed since it was stored"
            f"{f' (its file {found})' if found else ''}: delete its run and train again."
        )
    shutil.move(base, bundle / BASE_FOLDER)
    (bundle / "base.json").unlink()
    return wanted


def _downloaded(source: str, folder: Path, name: str | None = None) -> Path:
    """A copy without the files that MLflow and Python add."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        stored = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"{name or source} cannot be read from the store ({first_line(error)[:300]}): if the project's folder was moved, move it "
            "back; else delete its run and train again."
        ) from None
    # Python would not notice that bytecode belongs to another source.
    for cached in list(stored.rglob("__pycache__")):
        shutil.rmtree(cached)
    # MLflow notes there which version was downloaded.
    (stored / "registered_model_meta").unlink(missing_ok=True)
    return stored


def _model_id(client: MlflowClient, uri: str) -> str:
    """The id of the logged model that a URI names. It never comes from the files, because they may have been changed."""
    if match := _LOGGED.match(uri):
        return match[1]
    if uri.startswith("models:/"):
        name, version = get_model_name_and_version(client, uri)
        if match := _LOGGED.match(client.get_model_version(name, version).source):
            return match[1]
    elif match := _RUN.match(uri):
        found = client.search_logged_models(
            [client.get_run(match[1]).info.experiment_id],
            filter_string=f"source_run_id = '{match[1]}'",
            order_by=[{"field_name": "creation_timestamp", "ascending": False}],
        )
        for model in found:
            if model.name == match[2]:
                return model.model_id
    raise _no_model(uri)


def _no_model(uri: str) -> UserError:
    return UserError(
        f"{uri} leads to no logged model of the store {mlflow.get_tracking_uri()}: write models:/NAME@ALIAS, "
        "models:/NAME/VERSION, models:/MODEL_ID or runs:/RUN_ID/model."
    )


def _check_code(uri: str, model_id: str, tags: Mapping[str, str], stored: Path) -> None:
    """UserError if the code of a model for which only the code was recorded has changed."""
    recorded = tags.get(CODE)
    if recorded is None:
        raise UserError(
            f"{uri} was logged without a record of its files (by an earlier version of the suite, or by something else), so "
            "it is not run: train again, or serve it with `mlflow models serve`, which asks for no record."
        )
    try:
        flavors = Model.load(str(stored)).flavors
    except Exception:
        flavors = None
    digest = hashlib.sha256(json.dumps(flavors, sort_keys=True).encode())
    code = [*(stored / "code").rglob("*"), stored / "model.py"]
    for name, file in sorted((str(file.relative_to(stored)), file) for file in code if file.is_file()):
        content = file.read_bytes()
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    if digest.hexdigest() != recorded:
        raise UserError(
            f"{uri} is not run: its code (MLmodel, model.py, code/) was changed since it was logged as {model_id}. Find out who "
            "changed it; then register the model of another run, or train again."
        )
