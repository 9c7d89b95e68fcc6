"""What a champion must do beside its own test data: hold its ground on other data, and answer questions that it must not miss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Self

from mlflow.entities import Run

from ..counts import count_of
from ..data import prepared
from ..data.examples import read_examples
from ..data.label_values import spelled
from ..errors import UserError
from ..scoring.names import LABELS
from ..serving import model_logging
from ..tasks.interface import Answer, Example, Task
from . import checking, versions
from .gate import Rules, compared
from .head_to_head import Contender

NAMED = 3
"""Missed questions that a verdict names."""


@dataclass(frozen=True)
class AlsoOn:
    """Other data on which a candidate may not be worse than the champion by more than `tolerance` points."""

    folder: Path
    """Of prepared data; its test part is asked."""
    tolerance: float

    def __post_init__(self) -> None:
        given = self.tolerance
        if isinstance(given, bool) or not isinstance(given, Real) or not 0 <= given < math.inf:
            raise UserError(f"also_on {self.folder}: the points are {given!r}; give a number, 0 or more.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From FOLDER:POINTS; UserError where it is none."""
        folder, _, points = text.rpartition(":")
        try:
            if folder:
                return cls(Path(folder), float(points))
        except (ValueError, UserError):
            pass
        raise UserError(
            f"--also_on {text}: write FOLDER:POINTS, such as other_data:1.0 for at most one point less."
        )

    @property
    def name(self) -> str:
        """As sentences call it."""
        return self.folder.resolve().name or str(self.folder)


@dataclass(frozen=True)
class Demands:
    """Further conditions of promotion."""

    also_on: tuple[AlsoOn, ...] = ()
    must_pass: Path | None = None
    """A file of examples that a champion has to answer right, all of them."""

    def __str__(self) -> str:
        listed = [f"also_on={each.folder}:{each.tolerance:g}" for each in self.also_on]
        return " ".join([*listed, *([f"must_pass={self.must_pass}"] if self.must_pass else [])])


class Judge:
    """Demands with their data read, so that each model is asked once. UserError names what cannot be read, or not be asked.

    asked: the columns of a request to the candidate. language: of the candidate's data; the questions of the must-pass file
    that name none themselves are scored by its rules.
    """

    def __init__(self, demands: Demands, task: Task, asked: Sequence[str] = (), language: str | None = None):
        self.demands, self.task = demands, task
        asked = asked or tuple(model_logging.module_of(task).ASKED)
        self.elsewhere = [(each, _test_part(each.folder, task, asked)) for each in demands.also_on]
        self.must_pass = read_must_pass(demands.must_pass, task, asked) if demands.must_pass else []
        if language:
            self.must_pass = [{"language": language, **row} for row in self.must_pass]
        self._answered: dict[tuple[str, Path | None], list[Answer]] = {}

    @classmethod
    def of_run(cls, demands: Demands, task: Task, run: Run) -> Self:
        """Of the demands on a run's model."""
        asked = versions.asked(run) if demands != Demands() else ()
        return cls(demands, task, asked, run.data.tags.get("data_language"))

    def judged(self, new: Contender, old: Contender | None, rules: Rules) -> tuple[list[str], list[str]]:
        """(a clause for each demand that the new one fails, a line for each figure). old: the champion, None without one."""
        failed: list[str] = []
        lines: list[str] = []
        for asked, examples in self.elsewhere:
            failure, line = self._elsewhere(asked, examples, new, old, rules)
            failed += [failure] if failure else []
            lines.append(line)
        if self.must_pass:
            failure, line = self._passed(new, old)
            failed += [failure] if failure else []
            lines.append(line)
        return failed, lines

    def _elsewhere(
        self, asked: AlsoOn, examples: Sequence[Example], new: Contender, old: Contender | None, rules: Rules
    ) -> tuple[str, str]:
        name, unit = self._called(asked), self.task.unit
        if old is None:
            return "", f"On {name}: not looked at, for there is no champion to compare with."
        scores = []
        for one in (new, old):
            try:
                answers = self._answers(one, asked.folder.resolve(), examples)
            except checking.Unloadable as error:
                reason = f"nothing can be compared on {name}: {one.name} does not answer it ({error})"
                return reason, f"On {name}: {reason}."
            scores.append(self.task.judged(answers, examples)[1][self.task.metric])
        ours, theirs = scores
        found = compared(ours, theirs, rules)
        interval = f"{found['difference']:+.1f} points, {rules.confidence:.0%} interval {found['low']:+.1f} to {found['high']:+.1f}"
        line = (
            f"On {name}: {LABELS[self.task.metric]} on its {count_of(len(examples), f'test {unit}')}: {100 * ours.mean():.2f} "
            f"against {100 * theirs.mean():.2f}: {interval}, p = {found['p']:.3f}; at most {asked.tolerance:g} less."
        )
        if found["low"] >= -asked.tolerance:
            return "", line
        return (
            f"on {name} it is not shown to be within {asked.tolerance:g} points of the champion: {interval}",
            line,
        )

    def _called(self, asked: AlsoOn) -> str:
        """The name of the data in sentences: its path where another folder has the same name."""
        alike = {each.folder.resolve() for each in self.demands.also_on if each.name == asked.name}
        return asked.name if len(alike) == 1 else str(asked.folder)

    def _passed(self, new: Contender, old: Contender | None) -> tuple[str, str]:
        rows, unit = self.must_pass, self.task.unit
        try:
            right = self._right(new)
        except checking.Unloadable as error:
            reason = f"it does not answer the {unit} that it must pass ({error})"
            return reason, f"Must pass: {reason}."
        line = f"Must pass: {sum(right)} of {len(rows)} are right"
        if old is not None:
            try:
                line += f"; the champion {sum(self._right(old))}"
            except checking.Unloadable as error:
                line += f"; the champion does not answer them ({error})"
        missed = [row for row, passed in zip(rows, right, strict=True) if not passed]
        if not missed:
            return "", f"{line}."
        named = ", ".join(repr(str(row.get("question", row.get("text")))[:80]) for row in missed[:NAMED])
        more = f" and {len(missed) - NAMED} more" if len(missed) > NAMED else ""
        return f"it misses {len(missed)} of {len(rows)} {unit} that it must pass: {named}{more}", f"{line}."

    def _right(self, one: Contender) -> list[bool]:
        """Whether a model's answer to each row of the must-pass file is right."""
        _, each = self.task.judged(self._answers(one, None, self.must_pass), self.must_pass)
        right: list[bool] = self.task.right_of(each).tolist()
        return right

    def _answers(self, one: Contender, folder: Path | None, examples: Sequence[Example]) -> list[Answer]:
        """Of a model, loaded and asked in a process of its own. folder: that the examples are from; None: the must-pass file."""
        if (one.uri, folder) not in self._answered:
            asked = [self.task.request(example) for example in examples]
            self._answered[one.uri, folder] = checking.ask(one.uri, asked)["answers"]
        return self._answered[one.uri, folder]


def _test_part(folder: Path, task: Task, asked: Sequence[str]) -> list[Example]:
    """The test examples of prepared data that a served model takes."""
    splits, record = prepared.load(folder)
    if record.kind != task.data:
        raise UserError(
            f"--also_on {folder} holds data of the kind {record.kind!r}; {task.name} needs {task.data!r}: name another folder."
        )
    served = model_logging.module_of(task)
    examples = [task.named(example, record) for example in splits["test"]]
    for example in examples:
        _check_columns(f"--also_on {folder}: {example['id']}", example, task, asked)
    taken = [e for e in examples if served.is_taken(task.request(e))]
    if not taken:
        raise UserError(f"--also_on {folder}: its test part holds nothing that a served model takes.")
    return taken


def read_must_pass(path: Path, task: Task, asked: Sequence[str]) -> list[Example]:
    """The examples of a must-pass file in any format that `prepare_data.py` reads, such as SQuAD's JSON, or JSON Lines of
    `question`, `context` and `answers` (a text, or a list; [] for no answer), or of `text`, perhaps `text_pair`, and `label`
    by name, several as a list. asked: the columns of a request to the model.

    UserError names the file, the place and what is wrong there.
    """
    served, kind, found = model_logging.module_of(task), "qa" if task.data == "qa" else "text", []
    try:
        for example in read_examples([path], kind, multi_label=task.multi_label):
            place = f"{path}: {example['place']}"
            row = _labelled(place, example, task)
            _check_columns(place, row, task, asked)
            if not served.is_taken(task.request(row)):
                raise UserError(f"{place} is longer than a served model takes.")
            found.append(row)
        if not found:
            raise UserError(f"{path} holds no {task.unit}.")
    except UserError as error:
        raise UserError(f"--must_pass {error}") from None
    return [*found]


def _labelled(place: str, example: Example, task: Task) -> Example:
    """An example with its label by its name. Where it has any number of labels, its reader has named them."""
    if task.data == "qa" or task.multi_label:
        return example
    if not (name := spelled(example["label"])):
        raise UserError(f"{place} has the label {example['label']!r}, which is no name of one.")
    return {**example, "label": name}


def _check_columns(place: str, example: Example, task: Task, asked: Sequence[str]) -> None:
    """UserError where the example has other columns than the model is asked: it would not see all of the example."""
    if set(held := task.request(example)) != set(asked):
        raise UserError(f"{place} has {' and '.join(held)}; the model is asked {' and '.join(asked)}.")
