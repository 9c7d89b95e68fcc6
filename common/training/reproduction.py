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

from ..errors import UserError
from ..models import bundles
from ..scratch import scratch
from ..serving import stored_code
from ..tasks.interface import Task
from ..tracking import provenance, runs, store
from ..tracking.replicates import ABOUT_THE_RUN
from ..tracking.run_log import Silent
from . import logged_run
from .assessment import INPUTS
from .job import Job
from .logged_run import LoggedRun
from .planning import Plan, plan
from .settings import RunArgs, Technique, settled

MACHINE = {"python": "Python", "cpu": "the processor", "platform": "the system"}
"""What is compared of a machine beside its libraries, by its key in the provenance. The threads are set to the run's."""

TAGGED = {"device": "the device", "git_commit": "the commit"}
"""What is compared of a run's tags, the commit only where there is no record of the code."""

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
    """A score of the test as it was logged and as it is now, in percent; low, high: its logged 95% interval, NaN without one."""

    logged: float
    now: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval to hold it against."""
        return not math.isnan(self.low + self.high)

    @property
    def within(self) -> bool:
        """Whether the new score is the old one, or lies in the logged interval."""
        return self.logged == self.now or self.low <= self.now <= self.high


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
        """Whether the second training gave the same bits, those of the weights among them."""
        return self.weights is True and self.predictions and self.metrics

    @property
    def holds(self) -> bool:
        """Whether each score of the test is the old one, or lies in its logged interval."""
        return all(figure.within for figure in self.figures.values())


@dataclass(frozen=True)
class Logged:
    """What a run has logged of its result."""

    predictions: list[dict[str, Any]]
    weights: dict[str, str] | None
    """File → sha256; None where the run has no record of them."""
    metrics: dict[str, float]


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
    with scratch() as place:
        run = logged_run.read(run_id, place)
        runs.download(run_id, [INPUTS, provenance.FILE], place)
        technique, args = _settings(run, kinds, data_dir)
        logged_run.data_record(str(settled(args).data_dir), run_id, named=data_dir is not None)
        args = replace(args, output_dir=str(place / "run"))
        planned = plan(technique, args)
        recorded = _recorded(place / INPUTS)
        # Earlier versions recorded it as tags.
        machine = _recorded(place / provenance.FILE) or _of_machine(run.tags)
        logged = _logged(run, planned.task)
        planned.output_dir.mkdir()
        kept = Kept()
        with _threads(machine.get("threads")):
            differences = _differences(planned, run, recorded, machine)
            job = Job(planned, planned.output_dir / "scratch")
            job.scratch.mkdir()
            job.carry_out(kept)
    figures = _figures(logged, kept, planned.task)
    unknown = _unknown(recorded, machine, figures)
    return _compared(run, logged, kept, figures, differences, unknown)


def _settings(
    run: LoggedRun, kinds: Iterable[type[Technique]], data_dir: str | None
) -> tuple[Technique, RunArgs]:
    """The technique and the settings that a run has logged."""
    own = {field.name for field in fields(RunArgs)}
    technique = _technique(run, {k: v for k, v in run.config.items() if k not in own}, kinds)
    given = {k: v for k, v in run.config.items() if k in own and k not in ABOUT_THE_RUN}
    # What was resolved then: an alias, or what `auto` stands for, may have moved.
    for field, tag in (("model_checkpoint", "checkpoint"), ("teacher", "teacher")):
        if tag in run.tags:
            given[field] = run.tags[tag]
    if data_dir:
        given["data_dir"] = data_dir
    return technique, RunArgs(**given)


def _technique(run: LoggedRun, values: Mapping[str, Any], kinds: Iterable[type[Technique]]) -> Technique:
    """The technique that a run has logged, of its values. A setting that is newer than the run has its default.

    UserError where there is none of this name with these settings.
    """
    name = run.tags["technique"]
    # Some have the same settings: their names decide, which follow from the values.
    for kind in kinds:
        if values.keys() <= {field.name for field in fields(kind)} and (
            not kind.needs or kind.needs in values
        ):
            technique = kind(**values)
            if technique.name == name:
                return technique
    raise UserError(
        f"Run {run.run_id} ({name}) has settings that no technique of this version has ({', '.join(sorted(values))[:200]}): it "
        "was merged or imported, or trained by another version; check out its commit "
        f"({run.tags.get('git_commit', 'unknown')[:12]})."
    )


def _logged(run: LoggedRun, task: Task) -> Logged:
    """What a run is held against, read before anything is computed. UserError where it is not there."""
    if lacking := [name for name in task.metrics if f"test_{name}" not in run.metrics]:
        raise UserError(
            f"Run {run.run_id} has no metric test_{lacking[0]}: there is nothing to hold a second training against."
        )
    predictions = runs.predictions(run.run_id)
    inside = "artifacts/bundle/"
    with store.explained(f"run {run.run_id}"):
        files = stored_code.from_tags(stored_code.logged_model_of(f"runs:/{run.run_id}/model").tags)
    weights = files and {
        name.removeprefix(inside): digest
        for name, digest in _weights(files).items()
        if name.startswith(inside)
    }
    return Logged(predictions, weights, run.metrics)


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


def _of_machine(tags: Mapping[str, str]) -> dict[str, str]:
    """What a run's tags say of libraries and machine."""
    return {k: v for k, v in tags.items() if k.startswith("version.") or k in (*MACHINE, "threads")}


def _differences(
    planned: Plan, run: LoggedRun, recorded: Mapping[str, Any], machine: Mapping[str, str]
) -> list[str]:
    """A line for each input that is not as the run has recorded it."""
    found = []
    tags, now = run.tags, json.loads(json.dumps(planned.inputs))
    then = recorded or {"settings": {}, "content": {"data": tags.get("data_fingerprint")}}
    # A run's configuration holds every setting that its version had.
    if newer := sorted(now["settings"].keys() - {"technique", *then.get("settings", {}), *run.config}):
        each = ", ".join(f"{name} {now['settings'][name]!r}" for name in newer)
        found.append(f"settings that its version did not have: now {each}")
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
    now_tagged = provenance.tags()
    for name in ("device",) if recorded else ("device", "git_commit"):
        if (before := tags.get(name, "unknown")) not in ("unknown", now_tagged[name]):
            found.append(f"{TAGGED[name]}: {_short(before)} then, {_short(now_tagged[name])} now")
    return found


def _code(package: str) -> str:
    return f"the code of {'the modules of common' if package == 'modules' else f'common/{package}'}"


def _short(content: object) -> str:
    """A digest as people compare it: the first digits of its last word that is one."""
    words = [word for word in str(content).split() if len(word) >= 32]
    return words[0][:12] if words else str(content)


def _unknown(
    recorded: Mapping[str, Any], machine: Mapping[str, str], figures: Mapping[str, Figure]
) -> list[str]:
    found = []
    if not recorded:
        found.append(f"code, method and base, which it did not record ({INPUTS})")
    if not machine:
        found.append(f"libraries and machine, which it did not record ({provenance.FILE})")
    if lacking := [name for name, figure in figures.items() if not figure.known]:
        found.append(f"intervals, which it did not record (test_{lacking[0]}_low, test_{lacking[0]}_high)")
    return found


TIMES = ("evaluation_seconds", "evaluation_samples_per_second", "adapter_mib")
"""Figures that no computation decides, or that are no result."""


def _figures(logged: Logged, kept: Kept, task: Task) -> dict[str, Figure]:
    return {
        name: Figure(
            logged.metrics[f"test_{name}"],
            kept.figures[f"test_{name}"],
            logged.metrics.get(f"test_{name}_low", math.nan),
            logged.metrics.get(f"test_{name}_high", math.nan),
        )
        for name in task.metrics
    }


def _compared(
    run: LoggedRun,
    logged: Logged,
    kept: Kept,
    figures: dict[str, Figure],
    differences: list[str],
    unknown: list[str],
) -> Reproduction:
    rows = logged.predictions
    ours = {row["id"]: row for row in json.loads(json.dumps(kept.predictions))}
    alike = sum(row["prediction"] == ours.get(row["id"], {}).get("prediction") for row in rows)
    return Reproduction(
        run_id=run.run_id,
        technique=run.tags["technique"],
        differences=differences,
        unknown=unknown,
        weights=None if logged.weights is None else logged.weights == kept.weights,
        same_answers=alike,
        answers=len(rows),
        predictions=rows == list(ours.values()),
        figures=figures,
        metrics=all(
            _same(logged.metrics.get(name), now) for name, now in kept.figures.items() if name not in TIMES
        ),
    )


def _same(logged: float | None, now: float) -> bool:
    # Only finite figures are logged.
    return logged is None if math.isnan(now) else logged == now
