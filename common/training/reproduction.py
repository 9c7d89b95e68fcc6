"""`reproduce`: a run trained again from what it logged, and held against it: weights, predictions, figures, inputs.

Nothing is recorded: the second training leaves no run. It computes with as many threads as the first one, because sums are
added up in another order with others.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from ..data import prepared
from ..errors import UserError, first_line
from ..files import read_yaml
from ..models import bundles
from ..scratch import scratch
from ..serving import stored_code
from ..tasks.interface import Task
from ..tracking import provenance, runs, store
from ..tracking.replicates import ABOUT_THE_RUN
from ..tracking.run_log import Silent
from .assessment import INPUTS
from .job import Job
from .planning import Plan, plan
from .settings import RunArgs, Technique, settled

MACHINE = {"python": "Python", "cpu": "the processor", "platform": "the system", "threads": "the threads"}
"""What is compared of a machine beside its libraries, by its key in the provenance."""

CONTENT = {
    "data": "the prepared data",
    "checkpoint": "the weights and the tokenizer of the base",
    "teacher": "the teacher",
    "method": "what the technique makes",
    "script": "the technique's script",
}
"""What is compared by content, by its key in `Plan.inputs`; `code.NAME` is a package."""


@dataclass(frozen=True)
class Figure:
    """A score of the test as it was logged and as it is now, in percent; low, high: its logged 95% interval."""

    logged: float
    now: float
    low: float
    high: float

    @property
    def within(self) -> bool:
        """Whether the new score lies in the logged interval."""
        return self.low <= self.now <= self.high


@dataclass(frozen=True)
class Reproduction:
    """A run held against its second training."""

    run_id: str
    technique: str
    differences: list[str]
    """What differs of the inputs, a line each."""
    unknown: list[str]
    """What the run has not recorded, so that it cannot be compared."""
    weights: bool | None
    """Whether the files of the weights have the same sha256; None where the run's have no record."""
    same_answers: int
    answers: int
    """Examples of the test, and how many of them are predicted alike."""
    predictions: bool
    """Whether every prediction is the same to the last digit of its scores."""
    figures: dict[str, Figure]
    """Test metric → how it moved."""
    metrics: bool
    """Whether all logged figures of validation and test are the same to the last digit."""

    @property
    def equal(self) -> bool:
        """Whether the second training gave the same bits."""
        return self.weights is not False and self.predictions and self.metrics

    @property
    def holds(self) -> bool:
        """Whether each score of the test lies in its logged interval."""
        return self.equal or all(figure.within for figure in self.figures.values())


class Kept(Silent):
    """A log that keeps what is compared, and records nothing. Its files are gone when the training's folder is."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.weights: dict[str, str] = {}
        self.predictions: list[dict[str, Any]] = []

    def log_artifact(self, path: Path) -> None:
        """Reads the predictions of the test."""
        if (file := path / "test.json").is_file():
            self.predictions = json.loads(file.read_text(encoding="utf-8"))

    def log_model(
        self, bundle: Path, base: Path | None, example: Mapping[str, str], metrics: Mapping[str, float]
    ) -> None:
        """Keeps the sha256 of the weights, and the figures."""
        self.weights, self.figures = _weights(bundles.hashes(bundle)), dict(metrics)


def _weights(files: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name.endswith(".safetensors")}


def reproduce(run_id: str, kinds: Iterable[type[Technique]], data_dir: str | None = None) -> Reproduction:
    """Train a finished run again from its logged settings, and compare.

    kinds: the techniques that there are. data_dir: the prepared data; default: the folder that the run was trained from.
    UserError where the run was not trained, is not finished, or its settings are none of this version.
    """
    store.configure()
    held = runs.recorded(run_id)
    if held is None:
        raise UserError(
            f"Run {run_id} is not in the store: name runs by their ids (the last line of a training shows its id)."
        )
    if held["status"] != "FINISHED" or "technique" not in held["tags"]:
        raise UserError(
            f"Run {run_id} is {held['status']} or no training of this suite: name a finished one."
        )
    with scratch() as place:
        runs.download(run_id, ["config.yaml", INPUTS, provenance.FILE], place)
        technique, args = _settings(run_id, held["tags"], place / "config.yaml", kinds, data_dir)
        _check_data(str(settled(args).data_dir), run_id, named=data_dir is not None)
        args = replace(args, output_dir=str(place / "run"))
        planned = plan(technique, args)
        recorded = _recorded(place / INPUTS)
        machine = _recorded(place / provenance.FILE)
        planned.output_dir.mkdir()
        kept = Kept()
        with _threads(machine.get("threads")):
            differences = _differences(planned, held["tags"], recorded, machine)
            job = Job(planned, planned.output_dir / "scratch")
            job.scratch.mkdir()
            job.carry_out(kept)
    return _compared(run_id, held, planned.task, kept, differences, _unknown(recorded, machine))


def _settings(
    run_id: str,
    tags: Mapping[str, str],
    file: Path,
    kinds: Iterable[type[Technique]],
    data_dir: str | None,
) -> tuple[Technique, RunArgs]:
    """The technique and the settings that a run has logged."""
    try:
        config = dict(read_yaml(file))
    except (UserError, ValueError, TypeError) as error:
        raise UserError(f"Run {run_id} has no readable config.yaml ({first_line(error)}).") from None
    own = {field.name for field in fields(RunArgs)}
    name, rest = tags["technique"], {k: v for k, v in config.items() if k not in own}
    for kind in kinds:
        if {field.name for field in fields(kind)} == rest.keys():
            technique = kind(**rest)
            if technique.name == name:
                break
    else:
        raise UserError(
            f"Run {run_id} ({name}) has settings that no technique of this version has ({', '.join(sorted(rest))[:200]}): it "
            "was merged or imported, or trained by another version; check out its commit "
            f"({tags.get('git_commit', 'unknown')[:12]})."
        )
    given = {k: v for k, v in config.items() if k in own and k not in ABOUT_THE_RUN}
    # The checkpoint that was resolved then: an alias, or what `auto` stands for, may have moved.
    given |= {"model_checkpoint": tags.get("checkpoint", given.get("model_checkpoint"))}
    if data_dir:
        given["data_dir"] = data_dir
    return technique, RunArgs(**given)


def _check_data(folder: str, run_id: str, named: bool) -> None:
    """UserError where a folder holds no prepared data: a training would make it, and not from what the run was trained on."""
    try:
        prepared.load(folder)
    except UserError as error:
        if named:
            raise
        raise UserError(f"{error} Run {run_id} was trained from it: name the data with --data_dir.") from None


def _recorded(file: Path) -> dict[str, Any]:
    """What a run has recorded in a JSON file; empty where it has not."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


@contextmanager
def _threads(recorded: str | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if recorded and recorded.isdecimal() and int(recorded):
        torch.set_num_threads(int(recorded))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _differences(
    planned: Plan, tags: Mapping[str, str], recorded: Mapping[str, Any], machine: Mapping[str, str]
) -> list[str]:
    """A line for each input that is not as the run has recorded it."""
    found = []
    now = json.loads(json.dumps(planned.inputs))
    then = recorded or {"settings": {}, "content": {"data": tags.get("data_fingerprint")}}
    for name, value in sorted(then.get("settings", {}).items()):
        if name not in now["settings"] or now["settings"][name] != value:
            found.append(f"the setting {name}: {value!r} then, {now['settings'].get(name)!r} now")
    for name, value in then.get("content", {}).items():
        if value and now["content"].get(name) != value:
            what = CONTENT.get(name) or _code(name.removeprefix("code."))
            found.append(f"{what}: {_short(value)} then, {_short(now['content'].get(name))} now")
    here = provenance.details()
    for name, value in machine.items():
        if here.get(name) == value:
            continue
        if name.startswith("version."):
            package = name.removeprefix("version.")
            found.append(f"the library {package}: {value} then, {here.get(name, 'not installed')} now")
        elif name in MACHINE:
            found.append(f"{MACHINE[name]}: {value} then, {here.get(name)} now")
    device = provenance.tags()["device"]
    if tags.get("device", device) != device:
        found.append(f"the device: {tags['device']} then, {device} now")
    return found


def _code(package: str) -> str:
    return f"the code of {'the modules of common' if package == 'modules' else f'common/{package}'}"


def _short(content: object) -> str:
    """A digest as people compare it: the first digits of its last word that is one."""
    words = [word for word in str(content).split() if len(word) >= 32]
    return words[0][:12] if words else str(content)


def _unknown(recorded: Mapping[str, Any], machine: Mapping[str, str]) -> list[str]:
    found = []
    if not recorded:
        found.append(f"code, method and base, which it did not record ({INPUTS})")
    if not machine:
        found.append(f"libraries and machine, which it did not record ({provenance.FILE})")
    return found


TIMES = ("evaluation_seconds", "evaluation_samples_per_second", "adapter_mib")
"""Figures that no computation decides, or that are no result."""


def _compared(
    run_id: str,
    held: Mapping[str, Any],
    task: Task,
    kept: Kept,
    differences: list[str],
    unknown: list[str],
) -> Reproduction:
    logged, metrics = held["metrics"], {k: v for k, v in kept.figures.items() if k not in TIMES}
    rows = runs.predictions(run_id)
    ours = {row["id"]: row for row in json.loads(json.dumps(kept.predictions))}
    alike = sum(row["prediction"] == ours.get(row["id"], {}).get("prediction") for row in rows)
    files = stored_code.from_tags(stored_code.logged_model_of(f"runs:/{run_id}/model").tags)
    stored = files and {
        name.removeprefix("artifacts/bundle/"): digest
        for name, digest in _weights(files).items()
        if name.startswith("artifacts/bundle/")
    }
    return Reproduction(
        run_id=run_id,
        technique=held["tags"]["technique"],
        differences=differences,
        unknown=unknown,
        weights=None if stored is None else stored == kept.weights,
        same_answers=alike,
        answers=len(rows),
        predictions=rows == list(ours.values()),
        figures={
            name: Figure(
                logged[f"test_{name}"],
                metrics[f"test_{name}"],
                logged.get(f"test_{name}_low", math.nan),
                logged.get(f"test_{name}_high", math.nan),
            )
            for name in task.metrics
        },
        metrics=all(_same(logged.get(name), value) for name, value in metrics.items()),
    )


def _same(logged: float | None, now: float) -> bool:
    return logged is not None and (logged == now or (math.isnan(logged) and math.isnan(now)))
