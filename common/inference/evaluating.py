"""Models × data sets: every model asked everything, and scored as a run scores its test set."""

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..data import perturb
from ..data.label_values import is_sentiment, sentiment, several, spelled
from ..data.record import Example
from ..data_name import check_name
from ..errors import UserError
from ..scoring.bootstrap import bootstrap_interval, paired_bootstrap
from ..scoring.slices import scores_by_slice
from ..tasks.interface import Task
from ..tasks.questions import version_of
from .blocks import Answers, blocks
from .models import Model
from .predicting import answer

EVERY_LABEL = 100
"""Labels that a classifier is asked for: as many as models of every version give."""

MOST_SLICES = 30
"""Labels that have a slice of their own."""

WHERE = ("file", "place")
"""Fields of an example that say where it was read, not what it is."""

ORIGINAL = ""
"""The variant that is the data set as it is."""


@dataclass(frozen=True)
class DataSet:
    """Examples under a name, as they are or in a variant."""

    name: str
    examples: Sequence[Example]
    variant: str = ORIGINAL
    """Kind of `perturb.KINDS`; empty for the data as it is."""

    @property
    def title(self) -> str:
        """Such as "covid-qa" or "covid-qa, typos"."""
        return f"{self.name}, {self.variant}" if self.variant else self.name

    @property
    def key(self) -> str:
        """The name as metrics have it."""
        return _key(self.name, self.variant)

    @property
    def version(self) -> str:
        """The rules of SQuAD that apply: v2.0 where a question has no answer. They mean nothing to texts."""
        return version_of([example for example in self.examples if "answers" in example])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the content of the examples, in order, whatever format they were read from."""
        digest = hashlib.sha256()
        for example in self.examples:
            content = {name: value for name, value in example.items() if name not in WHERE}
            digest.update(json.dumps(content, sort_keys=True).encode())
        return digest.hexdigest()

    def variants(self, kinds: Sequence[str], seed: int) -> "list[DataSet]":
        """The data set, and one more for each kind of variant."""
        made = [DataSet(self.name, perturb.perturbed(self.examples, kind, seed), kind) for kind in kinds]
        return [self, *made]


def names_of(files: Sequence[str], given: Sequence[str] | None, kinds: Sequence[str] = ()) -> list[str]:
    """The names of the data sets of files: those that are given, or those of the files.

    kinds: the variants that each has. UserError names one by which metrics and folders cannot be called, or which another
    data set, or a variant of it, has too.
    """
    names = list(given) if given else [_plain(Path(file).name.partition(".")[0]) for file in files]
    if len(names) != len(files) or len(set(names)) < len(names):
        raise UserError(f"--name: give each of the {len(files)} files a name of its own.")
    seen: dict[str, str] = {}
    for name in names:
        check_name(name)
        for kind in (ORIGINAL, *kinds):
            key = _key(name, kind).lower()
            if key in seen:
                raise UserError(f"--name: {seen[key]} and {name} would both be logged as {key}; rename one.")
            seen[key] = name
    return names


def _key(name: str, variant: str) -> str:
    return f"{name}_{variant}" if variant else name


def _plain(name: str) -> str:
    """The name of a file as data can be called; as it is where nothing of it can."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-")[:60] or name


@dataclass(frozen=True)
class Result:
    """What one model did on one data set."""

    model: Model
    data: DataSet
    answers: Answers
    figures: dict[str, float]
    """In percent, by the name of the score; each of the task's metrics also with `_low` and `_high` (95% bootstrap)."""
    each: Mapping[str, np.ndarray]
    """Metric → the score of each example, 0 to 1."""
    slices: pd.DataFrame
    """As `scores_by_slice` gives it, of the deciding metric."""

    @property
    def standing(self) -> tuple[float, ...]:
        """What ranks models on the same data: the deciding figure, and where it is equal the others."""
        return tuple(self.figures[name] for name in self.model.task.metrics)

    def rows(self) -> list[dict[str, Any]]:
        """An example's id, scores and answer, for each example."""
        metrics = self.model.task.metrics
        return [
            {"id": given["id"], **{name: float(self.each[name][i]) for name in metrics}}
            | {name: value for name, value in given.items() if name not in ("id", "alternatives")}
            for i, given in enumerate(self.answers)
        ]


@dataclass(frozen=True)
class Evaluation:
    """The results of all models on all data sets; every comparison is of the same examples."""

    results: list[Result]
    lost: dict[tuple[str, str, str], dict[str, float]] = field(default_factory=dict)
    """(model, data set, variant) → how much lower the deciding score is than on the data as it is: `difference` with `low` and
    `high` in points, and `p` (paired bootstrap)."""
    behind: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    """(model, title of a data set) → the same against the best model there; without the best one itself."""

    @property
    def task(self) -> Task:
        """The task of all models."""
        return self.results[0].model.task

    def of(self, data: DataSet) -> list[Result]:
        """The results on one data set, in the order of the models."""
        return [result for result in self.results if result.data is data]

    def ranked(self, data: DataSet) -> list[Result]:
        """The results on one data set, the best first; of equal ones in the order of the models."""
        return sorted(self.of(data), key=lambda result: result.standing, reverse=True)


def evaluate(models: Sequence[Model], sets: Sequence[DataSet]) -> Evaluation:
    """Ask every model every example of every data set, and compare them.

    sets: each variant behind the data set that it is of. UserError where models are asked different things, or an example
    cannot be answered or scored.
    """
    if len({(model.asked, model.task.name) for model in models}) > 1:
        listed = "; ".join(
            f"{model.name} takes {' and '.join(model.asked)} ({model.task.name})" for model in models
        )
        raise UserError(f"These models cannot be compared: {listed}. Name models of one kind.")
    for data in sets:
        _check_references(data, models[0].task)
    results = [_result(model, data) for data in sets for model in models]
    evaluation = Evaluation(results)
    metric = evaluation.task.metric
    for data in sets:
        best, *others = evaluation.ranked(data)
        for result in others:
            compared = _points(result.each[metric], best.each[metric])
            evaluation.behind[result.model.name, data.title] = compared
    whole = {(r.model.name, r.data.name): r for r in results if r.data.variant == ORIGINAL}
    for result in results:
        if result.data.variant and (original := whole.get((result.model.name, result.data.name))):
            key = (result.model.name, result.data.name, result.data.variant)
            evaluation.lost[key] = _points(result.each[metric], original.each[metric])
    return evaluation


def _points(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    found = paired_bootstrap(a, b)
    return {name: value if name == "p" else 100 * value for name, value in found.items()}


def _check_references(data: DataSet, task: Task) -> None:
    if not data.examples:
        raise UserError(f"{data.name} holds no examples.")
    wanted = "answers" if task.data == "qa" else "label"
    for example in data.examples:
        if example.get(wanted) is None:
            raise UserError(
                f"{data.name}: {example['id']!r} has no {wanted}: models are evaluated on examples with the right ones; "
                "predict.py answers without."
            )


def _result(model: Model, data: DataSet) -> Result:
    task = model.task
    parameters: dict[str, Any] = {}
    if task.data != "qa":
        parameters = {"top_k": EVERY_LABEL}
    elif data.version == "v2.0" and model.origin.always_answers:
        # It was not trained here: nothing has chosen a threshold for it.
        parameters = {"null_threshold": 0.0}
    answers: Answers = []
    with tqdm(
        total=len(data.examples), unit=f" {task.unit}", desc=f"{model.name} on {data.title}", file=sys.stderr
    ) as bar:
        for block in blocks(data.examples, model.asked):
            answers += answer(model, parameters, block)
            bar.update(len(block))
    given, named = _named(task, answers, data)
    figures, each = task.judged(given, named)
    figures = {name: value for name, value in figures.items() if name not in ("exact", "total")}
    for name in task.metrics:
        figures[f"{name}_low"], figures[f"{name}_high"] = bootstrap_interval(100 * each[name])
    slices = scores_by_slice(_sliced(task, named), each[task.metric], task.slices)
    return Result(model, data, answers, figures, each, slices)


def _named(task: Task, answers: Answers, data: DataSet) -> tuple[Answers, Sequence[Example]]:
    """(answers, examples) with labels by their names; questions as they are.

    Where all labels on both sides spell negative or positive (0 and 1, neg and pos, LABEL_0 and LABEL_1), they get these
    names, as in prepared data. UserError names an example whose label has no name.
    """
    if task.data == "qa":
        return answers, data.examples
    named = []
    for example in data.examples:
        names = several(example["label"]) if task.multi_label else spelled(example["label"])
        if isinstance(names, str) and (task.multi_label or not names):
            place = f"{example.get('file', data.name)}: {example.get('place', example['id'])}"
            raise UserError(f"{place} has the label {example['label']!r}, which is no name of one.")
        named.append({**example, "label": names})
    if task.multi_label:
        return answers, named
    if is_sentiment({e["label"] for e in named} | {a["label"] for a in answers}):
        named = [{**example, "label": sentiment(example["label"])} for example in named]
        answers = [_as_sentiment(given) for given in answers]
    return answers, named


def _sliced(task: Task, named: Sequence[Example]) -> Sequence[Example]:
    """The examples as slices know them: of very many labels the most frequent ones by name."""
    if task.data == "qa":
        return named
    listed = [e["label"] if task.multi_label else [e["label"]] for e in named]
    shown = {name for name, _ in Counter(name for names in listed for name in names).most_common(MOST_SLICES)}
    if task.multi_label:
        return [
            {**e, "label_names": [n for n in names if n in shown]}
            for e, names in zip(named, listed, strict=True)
        ]
    return [{**e, "label_name": e["label"] if e["label"] in shown else "another label"} for e in named]


def _as_sentiment(given: Mapping[str, Any]) -> dict[str, Any]:
    others = [{**each, "label": sentiment(each["label"])} for each in given.get("alternatives") or ()]
    return {**given, "label": sentiment(given["label"]), "alternatives": others}
