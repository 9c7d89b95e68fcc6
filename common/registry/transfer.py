"""A run, or a registered version, copied from one store to another with all that belongs to it.

What is read from the first store lies in a folder before anything is written to the second one: models checked against their
records, a run's own artifacts, which have none, as they are. There a version comes last, and a new run stays RUNNING until it
is whole, so a transfer that was interrupted leaves nothing that looks finished; the next one completes it. Everything that was
copied has ORIGIN, by which it is found again.
"""

import contextlib
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS, MLFLOW_PARENT_RUN_ID

from ..errors import UserError, first_line
from ..models.bundles import REFERENCE, difference, hashes
from ..scratch import scratch
from ..serving import model_logging, stored_code
from ..tracking import experiments, runs, store
from . import champion, versions
from .gate import CHALLENGER, CHAMPION, Verdict

ORIGIN = "transferred_from"
"""Tag of a run, a logged model and a version: the id of the run, or of the logged model, that it is a copy of."""

_HERE_ONLY = (champion.BEFORE, champion.SINCE, champion.ROLLED_BACK)
"""Tags of a version that name versions of its own store."""

_RUN = re.compile(r"runs:/([0-9a-f]{32})(/.*)?")
_VERSION = re.compile(r"models:/[^/@]+(@[^/@]+|/\d+)")
_TOGETHER = {"params": 100, "tags": 100, "metrics": 1000}  # What one call to a server may hold.


@dataclass(frozen=True)
class Moved:
    """What the second store has now."""

    run_id: str
    models: int
    """Logged models of the run."""
    version: str | None = None
    """models:/NAME/VERSION, if a version was moved."""
    was_there: bool = False
    """Whether the run was there before, with all that it has now."""


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
    parameters, metrics, tags, artifacts, data sets and logged models there, under ids of that store; a run that went on since
    it was copied, or got more logged models, is copied again. UserError if something is missing in the first store, is not
    what was recorded, or is not as it was after it was copied, and if `alias` is champion and another version became it.
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
        origin = _origin(packed.run.data.tags, packed.run.info.run_id)
        with _in(target), store.lock(f"transfer-{origin}"):
            return _unpack(packed, origin, alias)


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
        # An alias may move meanwhile.
        uri = stored_code.with_version(uri)
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
    _download(client, run_id, artifacts)
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


def _download(client: MlflowClient, run_id: str, folder: Path) -> None:
    """The artifacts of a run, without those of its logged models."""
    try:
        for file in client.list_artifacts(run_id):
            client.download_artifacts(run_id, file.path, str(folder))
    except (MlflowException, OSError) as error:
        raise UserError(f"The artifacts of run {run_id} cannot be read: {first_line(error)}.") from None


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


def _unpack(packed: _Packed, origin: str, alias: str | None) -> Moved:
    client = MlflowClient()
    held = _held(client, packed, origin)
    at_home = held is not None and held.info.run_id == origin
    there = held is not None and (at_home or _is_as(held, packed.run))
    if held is None or not there:
        held = _write(client, packed, held, origin)
    models, added = _write_models(client, packed, held, at_home)
    if added and there and not at_home:
        held = _write(client, packed, held, origin)
    there = there and not added
    if not at_home:
        # Last, and with no effect on one that has ended like this.
        client.set_terminated(held.info.run_id, packed.run.info.status, packed.run.info.end_time)
    moved = Moved(held.info.run_id, len(models), was_there=there)
    if packed.version is None:
        return moved
    version = _write_version(client, packed, packed.version, held.info.run_id, models)
    if alias == CHAMPION:
        _crown(client, version.name, str(version.version))
    elif alias is not None:
        client.set_registered_model_alias(version.name, alias, version.version)
    return Moved(moved.run_id, moved.models, f"models:/{version.name}/{version.version}", there)


def _crown(client: MlflowClient, name: str, number: str) -> None:
    """Make this version champion, whatever others a promotion finds on its way."""

    def judge(other: str, _: str | None) -> Verdict:
        return Verdict(CHAMPION if other == number else CHALLENGER, ("version moved here as champion",))

    settled = champion.promote(client, name, number, judge, lambda *_: None)
    if settled.alias != CHAMPION:
        raise UserError(
            f"Version {number} of {name} was moved, but another one became champion at the same time: run it again if this one "
            "is to take its place."
        )


def _is_as(copy: Run, original: Run) -> bool:
    """Whether a copy is whole, and the original has not gone on since."""
    return copy.info.status == original.info.status and original.info.end_time in (None, copy.info.end_time)


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
    """Copy the run without its models, into the copy that there is of it, if there is one; its status stays as it is."""
    old, info = packed.run.data, packed.run.info
    # The parent stays where it is.
    tags = {name: value for name, value in old.tags.items() if name != MLFLOW_PARENT_RUN_ID} | {
        ORIGIN: origin
    }
    if begun is None:
        experiment = experiments.experiment_id(packed.experiment)
        begun = client.create_run(experiment, info.start_time, {**tags}, info.run_name)
    run_id = begun.info.run_id
    for part in _parts([RunTag(name, value) for name, value in tags.items()], _TOGETHER["tags"]):
        client.log_batch(run_id, tags=part)
    params = [Param(name, value) for name, value in old.params.items()]
    for part in _parts(params, _TOGETHER["params"]):
        client.log_batch(run_id, params=part)
    for part in _parts(packed.metrics, _TOGETHER["metrics"]):
        points = [Metric(m.key, m.value, m.timestamp, m.step) for m in part]
        client.log_batch(run_id, metrics=points)
    if packed.run.inputs.dataset_inputs:
        client.log_inputs(run_id, datasets=packed.run.inputs.dataset_inputs)
    if expected := hashes(packed.artifacts):
        client.log_artifacts(run_id, str(packed.artifacts))
        with scratch() as folder:
            _download(client, run_id, folder)
            # A run that has gone on may have left out what it had before.
            copied = {name: digest for name, digest in hashes(folder).items() if name in expected}
        if found := difference(copied, expected):
            raise UserError(f"The copy of run {info.run_id} is not as the run: its artifact {found}.")
    return client.get_run(run_id)


def _write_models(
    client: MlflowClient, packed: _Packed, run: Run, at_home: bool
) -> tuple[dict[str, str], int]:
    """Copy the logged models that a run of this store lacks: (origin → id of all that it has, how many were lacking)."""
    models = {_origin(model.tags, model.model_id): model.model_id for model in _models_of(client, run)}
    lacking = {
        origin: model
        for model in packed.models
        # A run that went on at home has replaced the model that its training had logged.
        if (origin := _origin(model.logged.tags, model.logged.model_id)) not in models
        and not (at_home and model.logged.name == "model")
    }
    if lacking:
        _forget_unfinished(client, run)
    for origin, model in lacking.items():
        models[origin] = _write_model(client, model, run, packed)
    known = {each.model_id for each in run.outputs.model_outputs}
    made = {m.logged.model_id: models.get(_origin(m.logged.tags, m.logged.model_id)) for m in packed.models}
    found = [(made.get(each.model_id), each.step) for each in packed.run.outputs.model_outputs]
    outputs = [LoggedModelOutput(id_, step) for id_, step in found if id_ is not None and id_ not in known]
    if outputs:
        client.log_outputs(run.info.run_id, outputs)
    return models, len(lacking)


def _forget_unfinished(client: MlflowClient, run: Run) -> None:
    """Delete the copies of models that a killed transfer left, which may lack files."""
    found = mlflow.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'", output_format="list"
    )
    for model in found:
        # A team's server lets people write into each other's runs, but not delete from them.
        if model.status != "READY" and ORIGIN in model.tags:
            with contextlib.suppress(MlflowException):
                client.delete_logged_model(model.model_id)


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
        bundle, loader = files / "artifacts" / "bundle", files / "model.py"
        recorded = _file_digest(loader, REFERENCE)
        model_logging.refer(bundle, model.base)
        # The loader compares the bundle with digests of its own.
        loader.write_text(loader.read_text().replace(recorded, hashes(bundle)[REFERENCE]))
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
    with scratch() as folder:
        stored_code.verified(f"models:/{made.model_id}", folder, f"The copy of {logged.model_id}")
    client.finalize_logged_model(made.model_id, "READY")
    return made.model_id


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
    )
