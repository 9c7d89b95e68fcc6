"""A run, or a registered version, copied from one store to another with all that belongs to it.

What is read from the first store is checked against its records and lies in a folder before anything is written to the
second one. There a version comes last, and a run stays RUNNING until it is whole, so a transfer that was interrupted leaves
nothing that looks finished; the next one completes it. Everything that was copied has ORIGIN, by which it is found again.
"""

import contextlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS, MLFLOW_PARENT_RUN_ID

from ..errors import UserError, first_line
from ..models.bundles import REFERENCE, hashes, read_bundle
from ..scratch import scratch
from ..serving import model_logging, stored_code
from ..tracking import experiments, runs, store
from . import champion, versions
from .gate import CHAMPION, Verdict

ORIGIN = "transferred_from"
"""Tag of a run, a logged model and a version: the id of the run, or of the logged model, that it is a copy of."""

_HERE_ONLY = (champion.BEFORE, champion.SINCE, champion.ROLLED_BACK)
"""Tags of a version that name versions of its own store."""

_RUN = re.compile(r"runs:/([0-9a-f]{32})(/.*)?")
_VERSION = re.compile(r"models:/[^/@]+(@[^/@]+|/\d+)")
_TOGETHER = {"params": 100, "metrics": 1000}
"""What one call to a server may hold."""


@dataclass(frozen=True)
class Moved:
    """What the second store has now."""

    run_id: str
    models: int
    """Logged models of the run."""
    version: str | None = None
    """models:/NAME/VERSION, if a version was moved."""
    was_there: bool = False
    """Whether the run was there, whole, before."""


@dataclass(frozen=True)
class _Model:
    """A logged model as it was read: its files, and the base that it refers to, if it does not hold its own."""

    logged: LoggedModel
    files: Path
    base: Path | None


@dataclass(frozen=True)
class _Packed:
    """A run as it was read."""

    run: Run
    experiment: str
    metrics: list[Metric]
    artifacts: Path
    models: list[_Model]
    version: ModelVersion | None
    about: str | None
    """Description of the version's registered model."""


def transfer(uri: str, source: str, target: str, alias: str | None = None) -> Moved:
    """Copy a run (`runs:/ID`) or a version (`models:/NAME/VERSION`, `models:/NAME@ALIAS`) with its run between stores.

    source, target: tracking URIs. alias: what the version is called in the second store; none by default. The run has its
    parameters, metrics, tags, artifacts, data sets and logged models there, under ids of that store. UserError if something
    is missing in the first store, is not what was recorded, or is not as it was after it was copied.
    """
    if alias is not None and not _VERSION.fullmatch(uri):
        raise UserError(f"--alias {alias} is for versions; {uri} is none.")
    if not (_VERSION.fullmatch(uri) or _RUN.fullmatch(uri)):
        raise UserError(f"{uri!r}: write runs:/RUN_ID, models:/NAME/VERSION or models:/NAME@ALIAS.")
    if source.rstrip("/") == target.rstrip("/"):
        raise UserError(f"--from and --to are the same store, {store.without_secrets(source)}.")
    with scratch() as folder:
        with _in(source, must_exist=True):
            packed = _pack(uri, folder)
        with _in(target), store.lock(f"transfer-{packed.run.info.run_id}"):
            return _unpack(packed, alias)


@contextlib.contextmanager
def _in(uri: str, must_exist: bool = False) -> Iterator[None]:
    """Within this block the store is the one of this URI."""
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        if must_exist and not store.exists():
            raise UserError(f"--from {uri}: there is no such store.")
        store.configure()
        with store.explained():
            yield
    finally:
        mlflow.set_tracking_uri(before)


def _pack(uri: str, folder: Path) -> _Packed:
    client = MlflowClient()
    version = about = None
    if match := _RUN.fullmatch(uri):
        run_id = match[1]
    else:
        version = client.get_model_version(*get_model_name_and_version(client, uri))
        about = client.get_registered_model(version.name).description
        run_id = stored_code.logged_model_of(uri).source_run_id or version.run_id
        if not run_id:
            raise UserError(
                f"{uri} was made by no run of this store, so it has no lineage that could be moved."
            )
    if reason := runs.why_missing(run_id):
        raise UserError(f"Run {run_id} cannot be moved: {reason}.")
    run = client.get_run(run_id)
    if run.info.status in ("RUNNING", "SCHEDULED"):
        raise UserError(
            f"Run {run_id} has not ended: move it when it has (an interrupted one ends with --resume)."
        )
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    try:
        for file in client.list_artifacts(run_id):
            client.download_artifacts(run_id, file.path, str(artifacts))
    except (MlflowException, OSError) as error:
        raise UserError(f"The artifacts of run {run_id} cannot be read: {first_line(error)}.") from None
    history = [client.get_metric_history(run_id, name) for name in sorted(run.data.metrics)]
    return _Packed(
        run,
        experiments.name_of(run.info.experiment_id),
        [point for points in history for point in points],
        artifacts,
        [_read(logged, folder / logged.model_id) for logged in _models_of(client, run)],
        version,
        about,
    )


def _models_of(client: MlflowClient, run: Run) -> list[LoggedModel]:
    """The complete logged models of a run, the oldest first: which one is the newest must stay so."""
    found = mlflow.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'", output_format="list"
    )
    ready = [client.get_logged_model(model.model_id) for model in found if model.status == "READY"]
    return sorted(ready, key=lambda model: model.creation_timestamp)


def _read(logged: LoggedModel, folder: Path) -> _Model:
    """A logged model's files and its base, both as they were recorded."""
    if stored_code.from_tags(logged.tags) is None:
        raise UserError(
            f"The logged model {logged.model_id} was logged by an earlier version of the suite, without a record of its files: "
            "train again, or register it again."
        )
    files = stored_code.verified(f"models:/{logged.model_id}", folder)
    bundle, base = files / "artifacts" / "bundle", None
    if stored_code.BASE in logged.tags:
        base = folder / "shared-base"
        shutil.move(bundle / "base", base)
    return _Model(logged, files, base)


def _unpack(packed: _Packed, alias: str | None) -> Moved:
    client, origin = MlflowClient(), _origin(packed.run.data.tags, packed.run.info.run_id)
    held = _held(client, packed, origin)
    there = held is not None and held.info.status != "RUNNING"
    if held is None or not there:
        held = _write(client, packed, held, origin)
    models = {_origin(model.tags, model.model_id): model.model_id for model in _models_of(client, held)}
    moved = Moved(held.info.run_id, len(models), was_there=there)
    if packed.version is None:
        return moved
    version = _write_version(client, packed, packed.version, held.info.run_id, models)
    if alias == CHAMPION:
        asked = Verdict(CHAMPION, ("it was moved here as champion",))
        champion.promote(client, version.name, str(version.version), lambda *_: asked, lambda *_: None)
    elif alias is not None:
        client.set_registered_model_alias(version.name, alias, version.version)
    return Moved(moved.run_id, moved.models, f"models:/{version.name}/{version.version}", there)


def _origin(tags: Mapping[str, str], id_: str) -> str:
    """What something is a copy of, at first hand or not; itself if it is none."""
    return tags.get(ORIGIN, id_)


def _held(client: MlflowClient, packed: _Packed, origin: str) -> Run | None:
    """The run in this store: one that comes back home, or a copy, whole or not; None if there is none yet."""
    with contextlib.suppress(MlflowException):
        if runs.why_missing(origin) is None:
            return client.get_run(origin)
    experiment = experiments.experiment_id(packed.experiment)
    found = client.search_runs([experiment], f"tags.{ORIGIN} = '{origin}'")
    return min(found, key=lambda run: (run.info.status == "RUNNING", run.info.start_time), default=None)


def _write(client: MlflowClient, packed: _Packed, begun: Run | None, origin: str) -> Run:
    """Copy the run, into the one that an interrupted transfer began if there is one."""
    old, info = packed.run.data, packed.run.info
    # The parent stays where it is.
    tags = {name: value for name, value in old.tags.items() if name != MLFLOW_PARENT_RUN_ID} | {
        ORIGIN: origin
    }
    if begun is None:
        experiment = experiments.experiment_id(packed.experiment)
        begun = client.create_run(experiment, info.start_time, {**tags}, info.run_name)
    run_id = begun.info.run_id
    params = [Param(name, value) for name, value in old.params.items()]
    for part in _parts(params, _TOGETHER["params"]):
        client.log_batch(run_id, params=part)
    for part in _parts(packed.metrics, _TOGETHER["metrics"]):
        points = [Metric(m.key, m.value, m.timestamp, m.step) for m in part]
        client.log_batch(run_id, metrics=points)
    if packed.run.inputs.dataset_inputs:
        client.log_inputs(run_id, datasets=packed.run.inputs.dataset_inputs)
    if any(packed.artifacts.iterdir()):
        client.log_artifacts(run_id, str(packed.artifacts))
    # Those that a killed transfer left may lack files.
    for name in {model.logged.name for model in packed.models}:
        model_logging.forget_models(run_id, name)
    made = {model.logged.model_id: _write_model(client, model, begun, packed) for model in packed.models}
    outputs = [each for each in packed.run.outputs.model_outputs if each.model_id in made]
    if outputs:
        client.log_outputs(run_id, [LoggedModelOutput(made[each.model_id], each.step) for each in outputs])
    client.set_terminated(run_id, info.status, info.end_time)
    return client.get_run(run_id)


def _parts(values: list, most: int) -> Iterator[list]:
    return (values[begin : begin + most] for begin in range(0, len(values), most))


def _write_model(client: MlflowClient, model: _Model, run: Run, packed: _Packed) -> str:
    """Copy a logged model into a run; its id. Its files name it, its run and its base, which have other ids here."""
    old_run = packed.run.info.run_id
    not_numbers = {(m.key, m.timestamp, m.step) for m in packed.metrics if math.isnan(m.value)}
    logged, files, run_id = model.logged, model.files, run.info.run_id
    tags = {
        name: value
        for name, value in logged.tags.items()
        if name != MLFLOW_MODEL_VERSIONS and not name.startswith(f"{stored_code.FILES}_")
    }
    tags[ORIGIN] = _origin(logged.tags, logged.model_id)
    made = client.create_logged_model(
        run.info.experiment_id, logged.name, run_id, tags, logged.params, logged.model_type
    )
    described = files / "MLmodel"
    text = described.read_text().replace(logged.model_id, made.model_id).replace(old_run, run_id)
    described.write_text(text)
    if model.base is not None:
        _refer(files, model.base)
    client.set_logged_model_tags(made.model_id, stored_code.as_tags(hashes(files)))
    client.log_model_artifacts(made.model_id, str(files))
    points = [
        Metric(
            m.key,
            # The store of a model's metrics has 0 for what is no number; the run's has both.
            math.nan if (m.key, m.timestamp, m.step) in not_numbers else m.value,
            m.timestamp,
            m.step,
            model_id=made.model_id,
            dataset_name=m.dataset_name,
            dataset_digest=m.dataset_digest,
        )
        for m in logged.metrics or ()
        # Those of evaluations belong to runs of their own.
        if m.run_id in (None, old_run)
    ]
    for part in _parts(points, _TOGETHER["metrics"]):
        client.log_batch(run_id, metrics=part)
    client.finalize_logged_model(made.model_id, "READY")
    with scratch() as folder:
        stored_code.verified(f"models:/{made.model_id}", folder, f"The copy of {logged.model_id}")
    return made.model_id


def _refer(files: Path, base: Path) -> None:
    """Let a model's files name this store's copy of its base, which is stored if it is not there yet."""
    bundle, loader = files / "artifacts" / "bundle", files / "model.py"
    fingerprint = read_bundle(bundle).base_fingerprint
    recorded = _file_digest(loader, REFERENCE)
    reference = {"uri": model_logging.shared_base(base, fingerprint), "fingerprint": fingerprint}
    (bundle / REFERENCE).write_text(json.dumps(reference) + "\n")
    # The loader compares the bundle with digests of its own.
    loader.write_text(loader.read_text().replace(recorded, hashes(bundle)[REFERENCE]))


def _file_digest(loader: Path, name: str) -> str:
    """The digest of a file of the saved model that its loader holds."""
    found = re.search(rf"'{re.escape(name)}': '([0-9a-f]{{64}})'", loader.read_text())
    if found is None:
        raise UserError(f"{loader.name} of the stored model knows no {name}: train again.")
    return found[1]


def _write_version(
    client: MlflowClient, packed: _Packed, version: ModelVersion, run_id: str, models: Mapping[str, str]
) -> ModelVersion:
    """The version of the run's copy, made if this store has none."""
    old = version.source.removeprefix("models:/")
    origin = next((_origin(m.logged.tags, old) for m in packed.models if m.logged.model_id == old), old)
    if origin not in models:
        raise UserError(
            f"Version {version.version} of {version.name} refers to {version.source}, which its run does not hold."
        )
    uri = f"models:/{models[origin]}"
    for held in client.search_model_versions(f"name = '{version.name}'"):
        if held.source == uri:
            return held
    tags = {name: value for name, value in version.tags.items() if name not in _HERE_ONLY}
    if "run_id" in tags:
        tags["run_id"] = run_id
    return versions.create(
        client,
        version.name,
        packed.about or "",
        uri,
        tags | {ORIGIN: origin},
        version.description or "",
        run_id=run_id,
        same=(ORIGIN,),
    )
