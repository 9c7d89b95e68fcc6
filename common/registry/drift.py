"""Whether served questions still are like those that a version was trained and tested on: what a server noted, beside the version's run."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run

from ..counts import count_of
from ..errors import UserError
from ..scoring import drift
from ..scoring.drift import Distance
from ..scoring.uncertainty import holm
from ..serving.observations import FILES, measures, result
from ..serving.stored_code import with_version
from ..tasks.interface import Task
from ..tasks.table import DEFAULT_TASK, task_of
from ..tracking import runs, store
from .checking import data_of

ALPHA = 0.05
"""A measure drifts if its p-value, by Holm's correction for all measures, is below."""

AGAINST = ("test", "train")
"""The splits whose texts served ones may be compared with."""

LEAST = 0.1
"""And if its distance is at least this: among very many questions the smallest difference is significant."""

Values = dict[str, list[Any]]
"""Measure → a value for each example, numbers or categories."""


@dataclass(frozen=True)
class Measure:
    """One measure of the test data and of what was served."""

    name: str
    reference: list[Any]
    served: list[Any]
    distance: Distance
    p: float
    """By Holm's correction for all measures."""
    drifts: bool

    @property
    def is_number(self) -> bool:
        """Whether the values are numbers, and not categories."""
        return not isinstance(self.reference[0], str)


@dataclass(frozen=True)
class Drift:
    """A version's measures, and what they were taken from."""

    name: str
    version: str
    run_id: str
    unit: str
    """What its examples are called, in the plural."""
    sizes: dict[str, int]
    """Split → how many of its examples the reference has."""
    rows: int
    """Served, in the time asked for, by this version."""
    first: str
    last: str
    """Times of the first and the last of them."""
    abstained: int
    unreadable: int
    """Lines that could not be read, such as the last one of a server that was killed."""
    least: float
    measures: list[Measure]

    @property
    def drifting(self) -> list[str]:
        """The measures that drift."""
        return [measure.name for measure in self.measures if measure.drifts]


def compare(
    folder: Path,
    uri: str,
    since: date | None = None,
    data_dir: Path | None = None,
    least: float = LEAST,
    against: str = AGAINST[0],
) -> Drift:
    """Compare what servers noted in a folder of a version (models:/NAME@ALIAS or models:/NAME/VERSION) with its run's data.

    since: the first day, in UTC. data_dir: the prepared data; default: the folder that the run was trained from. least: the
    distance from which on a measure may drift. against: one of AGAINST, the split whose texts served ones are compared with;
    answers are compared with those to the test data. UserError where there is nothing to compare.
    """
    files = _files(folder, since)
    store.configure()
    with store.explained():
        found = re.fullmatch(r"models:/([^/@]+)/(\d+)", with_version(uri))
        if not found:
            raise UserError(f"--model is {uri!r}; write models:/NAME@ALIAS or models:/NAME/VERSION.")
        version = mlflow.MlflowClient().get_model_version(*found.groups())
        run = mlflow.get_run(version.tags.get("run_id") or version.run_id)
    task = task_of(run.data.tags.get("task", DEFAULT_TASK))
    reference, sizes = _reference(run, task, data_dir, against)
    served = _Served(version.name, {str(version.version), str(version.source).removeprefix("models:/")})
    served.read(files)
    if not served.rows:
        raise UserError(
            f"{folder} holds nothing of version {version.version} of {version.name}"
            + (f" since {since}" if since else "")
            + (f"; it holds version {', '.join(sorted(served.others))}." if served.others else ".")
        )
    measured = [
        (name, values, served.values[name])
        for name, values in reference.items()
        if values and served.values[name] and not _says_nothing(name, values, served.values[name])
    ]
    distances = [
        (drift.of_categories if isinstance(values[0], str) else drift.of_numbers)(values, others)
        for _, values, others in measured
    ]
    corrected = holm([distance.p for distance in distances])
    return Drift(
        version.name,
        str(version.version),
        run.info.run_id,
        task.unit,
        sizes,
        served.rows,
        served.first,
        served.last,
        served.abstained,
        served.unreadable,
        least,
        [
            Measure(*each, distance, float(p), bool(p < ALPHA and distance.value >= least))
            for each, distance, p in zip(measured, distances, corrected, strict=True)
        ],
    )


def _files(folder: Path, since: date | None) -> list[Path]:
    files = sorted(folder.glob(FILES))
    if not files:
        raise UserError(
            f"{folder} holds no observations of a server: start it with SERVING_OBSERVATIONS={folder} (docs/OPERATIONS.md)."
        )
    return [file for file in files if since is None or file.name[len("observations-") :] >= str(since)]


def _says_nothing(name: str, *samples: list[Any]) -> bool:
    """Whether there is one outcome alone, as of a model that answers everything."""
    return name == "outcome" and len({value for values in samples for value in values}) < 2


def _reference(run: Run, task: Task, data_dir: Path | None, against: str) -> tuple[Values, dict[str, int]]:
    """(the measures of a run's data, split → how many of its examples they have)."""
    splits, record = data_of(run, task, data_dir)

    def texts(split: str) -> dict[str, dict[str, Any]]:
        requests = {e["id"]: task.request(task.described(e, record)) for e in splits[split]}
        return {id_: {name: [*measures(t), t] for name, t in each.items()} for id_, each in requests.items()}

    values, every, rows = _Distinct(), texts("test"), runs.predictions(run.info.run_id)
    answered = [(every[row["id"]], result(_as_answer(row, task))) for row in rows if row["id"] in every]
    tested = [each for each, _ in answered]
    compared = tested if against == "test" else list(texts(against).values())
    for each in compared:
        values.add_texts(each)
    for asked, answer in answered:
        values.add_answer(asked, answer)
    return values.found, {"test": len(tested), against: len(compared)}


def _as_answer(row: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """A row of a run's predictions with the names of a served answer."""
    if task.multi_label:
        return {"labels": row["prediction"]}
    named = "label" if task.data == "text" else "answer"
    return {named: row["prediction"], "score": row.get("calibrated", row[task.confidence])}


class _Distinct:
    """Measures of rows. A text, and a row, that comes again counts once: many questions have one context, and what asks the
    same again and again, as a probe does, says nothing new."""

    def __init__(self) -> None:
        self.found: Values = defaultdict(list)
        self._known: set[Any] = set()

    def add_texts(self, texts: Mapping[str, Any]) -> None:
        """texts: column → [characters, script, a mark of the text]."""
        for name, (characters, script, mark) in texts.items():
            if self._is_new((name, mark)):
                self.found[f"{name} length"].append(characters)
                self.found[f"{name} script"].append(script)

    def add_answer(self, texts: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """The answer to these texts, as `observations.result` gives it."""
        abstained = answer["outcome"] == "abstained"
        if self._is_new(tuple(mark for *_, mark in texts.values())):
            for name, value in answer.items():
                # What was held back is known by its score alone.
                if name == "score" or not abstained:
                    self.found[name].append(value)

    def _is_new(self, mark: Any) -> bool:
        known = mark in self._known
        self._known.add(mark)
        return not known


class _Served:
    """What servers noted of a version. name: of its registered model; called: its number, and the id of its logged model."""

    def __init__(self, name: str, called: set[str]):
        self._name, self._called, self._distinct = name, called, _Distinct()
        self.values = self._distinct.found
        self.rows = self.abstained = self.unreadable = 0
        self.first = self.last = ""
        self.others: set[str] = set()

    def read(self, files: Iterable[Path]) -> None:
        for row in self._lines(files):
            try:
                time, version, texts = row.pop("time"), row.pop("version"), row.pop("texts")
                # A server may answer with several models; one that was not served by name has none.
                model = row.pop("model", self._name)
                if model != self._name or version not in self._called:
                    self.others.add(str(version) if model == self._name else f"{version} of {model}")
                    continue
                self._distinct.add_texts(texts)
                self._distinct.add_answer(texts, row)
            except (AttributeError, KeyError, TypeError, ValueError):
                self.unreadable += 1
                continue
            self.rows += 1
            self.abstained += row["outcome"] == "abstained"
            self.first, self.last = min(self.first or time, time), max(self.last, time)

    def _lines(self, files: Iterable[Path]) -> Iterator[dict[str, Any]]:
        for file in files:
            try:
                with open(file, encoding="utf-8", errors="replace") as lines:
                    for line in lines:
                        try:
                            yield json.loads(line)
                        except ValueError:
                            self.unreadable += 1
            except FileNotFoundError:
                # A server has removed it to stay within its limit.
                continue
            except OSError as error:
                raise UserError(f"{file} cannot be read: {error.strerror}.") from None


def _counted(found: Drift) -> list[str]:
    """The examples of the reference, by their split."""
    called = {"test": "test", "train": "training"}
    return [count_of(n, f"{called[split]} {found.unit}") for split, n in found.sizes.items()]


def summary(found: Drift) -> str:
    """What was compared, in a sentence."""
    first, last = (time[:16].replace("T", " ") for time in (found.first, found.last))
    return (
        f"Version {found.version} of {found.name}: {count_of(found.rows, 'served rows')} from {first} to {last} UTC, beside "
        f"{' and '.join(_counted(found))} of the data of run {found.run_id}."
    )
