"""What a champion must do beside its own test data: hold its ground on other data, and answer questions that it must not miss."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import prepared
from ..data.squad_json import read_squad_json
from ..errors import UserError
from ..scoring.names import LABELS
from ..serving import model_logging
from ..tasks.interface import Answer, Example, Task
from . import checking
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

    @classmethod
    def parse(cls, text: str) -> "AlsoOn":
        """From FOLDER:POINTS; UserError where it is none."""
        folder, _, points = text.rpartition(":")
        try:
            tolerance = float(points)
        except ValueError:
            tolerance = math.nan
        if not folder or not 0 <= tolerance < math.inf:
            raise UserError(
                f"--also_on {text}: write FOLDER:POINTS, such as other_data:1.0 for at most one point less."
            )
        return cls(Path(folder), tolerance)

    @property
    def name(self) -> str:
        """As sentences call it."""
        return self.folder.name


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
    """Demands with their data read, so that each model is asked once. UserError names what cannot be read."""

    def __init__(self, demands: Demands, task: Task):
        self.demands, self.task = demands, task
        self.elsewhere = [(each, _test_part(each.folder, task)) for each in demands.also_on]
        self.must_pass = read_must_pass(demands.must_pass, task) if demands.must_pass else []
        self._answered: dict[tuple[str, str], list[Answer]] = {}

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
        name, unit = asked.name, self.task.unit
        if old is None:
            return "", f"On {name}: not looked at, for there is no champion to compare with."
        scores = []
        for one in (new, old):
            try:
                answers = self._answers(one, name, examples)
            except checking.Unloadable as error:
                reason = f"nothing can be compared on {name}: {one.name} does not answer it ({error})"
                return reason, f"On {name}: {reason}."
            scores.append(self.task.judged(answers, examples)[1][self.task.metric])
        ours, theirs = scores
        found = compared(ours, theirs, rules)
        interval = f"{found['difference']:+.1f} points, {rules.confidence:.0%} interval {found['low']:+.1f} to {found['high']:+.1f}"
        line = (
            f"On {name}: {LABELS[self.task.metric]} on its {len(examples)} test {unit}: {100 * ours.mean():.2f} "
            f"against {100 * theirs.mean():.2f}: {interval}, p = {found['p']:.3f}; at most {asked.tolerance:g} less."
        )
        if found["low"] >= -asked.tolerance:
            return "", line
        return (
            f"on {name} it is not shown to be within {asked.tolerance:g} points of the champion: {interval}",
            line,
        )

    def _passed(self, new: Contender, old: Contender | None) -> tuple[str, str]:
        rows, right = self.must_pass, []
        for one in (new, *([old] if old else [])):
            try:
                _, each = self.task.judged(self._answers(one, "", rows), rows)
                right.append(self.task.right_of(each).tolist())
            except checking.Unloadable:
                right.append([False] * len(rows))
        champion = f"; the champion {sum(right[1])}" if old else ""
        line = f"Must pass: {sum(right[0])} of {len(rows)} are right{champion}."
        missed = [row for row, passed in zip(rows, right[0], strict=True) if not passed]
        if not missed:
            return "", line
        named = ", ".join(repr(str(row.get("question", row.get("text")))[:80]) for row in missed[:NAMED])
        more = f" and {len(missed) - NAMED} more" if len(missed) > NAMED else ""
        return (
            f"it misses {len(missed)} of {len(rows)} {self.task.unit} that it must pass: {named}{more}",
            line,
        )

    def _answers(self, one: Contender, name: str, examples: Sequence[Example]) -> list[Answer]:
        """Of a model, loaded and asked in a process of its own."""
        if (one.uri, name) not in self._answered:
            asked = [self.task.request(example) for example in examples]
            self._answered[one.uri, name] = checking.ask(one.uri, asked)["answers"]
        return self._answered[one.uri, name]


def _test_part(folder: Path, task: Task) -> list[Example]:
    """The test examples of prepared data that a served model takes."""
    splits, record = prepared.load(folder)
    served = model_logging.module_of(task)
    if lacking := [column for column in served.ASKED if column not in splits["test"].column_names]:
        raise UserError(
            f"--also_on {folder}: its rows have no {lacking[0]!r}, so {task.name} cannot be asked."
        )
    examples = [task.named(example, record) for example in splits["test"]]
    taken = [e for e in examples if served.is_taken(task.request(e))]
    if not taken:
        raise UserError(f"--also_on {folder}: its test part holds nothing that a served model takes.")
    return taken


def read_must_pass(path: Path, task: Task) -> list[Example]:
    """The examples of a must-pass file: SQuAD's JSON, or JSON Lines of `question`, `context` and `answers` (a text, or a list;
    [] for no answer), or of `text`, perhaps `text_pair`, and `label` by name, several as a list. UserError names the file, the line and what is wrong with it."""
    served = model_logging.module_of(task)
    if path.suffix == ".json" and task.data == "qa":
        rows: list[dict[str, Any]] = [dict(example) for example in read_squad_json(path).examples]
    else:
        rows = [_row(f"--must_pass {path}: line {number}", line, task) for number, line in _lines(path)]
    if not rows:
        raise UserError(f"--must_pass {path} holds no {task.unit}.")
    for row in rows:
        if not served.is_taken(task.request(row)):
            raise UserError(f"--must_pass {path}: {row['id']} is empty, or longer than a served model takes.")
    return [*rows]


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--must_pass {path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--must_pass {path} is not UTF-8: byte {error.start}.") from None
    # Not splitlines, which takes a line separator within a JSON string for an end.
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _row(place: str, line: str, task: Task) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place} is no JSON: {error}.") from None
    wanted = ("question", "context", "answers") if task.data == "qa" else ("text", "label")
    if not isinstance(row, Mapping) or not set(wanted) <= row.keys():
        raise UserError(f"{place} must be an object with {', '.join(wanted)}.")
    several = task.data == "multi-label text"
    texts = wanted[:2] if task.data == "qa" else [name for name in ("text", "text_pair") if name in row]
    for name in (*texts, *(("label",) if task.data == "text" else ())):
        if not isinstance(row[name], str):
            raise UserError(f"{place}: {name} must be a string.")
    if several and not (isinstance(row["label"], list) and all(isinstance(x, str) for x in row["label"])):
        raise UserError(f"{place}: label must be a list of labels; [] for none.")
    if task.data != "qa":
        return {"id": place, "label": row["label"], **{name: row[name] for name in texts}}
    answers = [row["answers"]] if isinstance(row["answers"], str) else row["answers"]
    if not isinstance(answers, list) or not all(isinstance(answer, str) and answer for answer in answers):
        raise UserError(f"{place}: answers must be a text or a list of texts.")
    return {"id": place, "question": row["question"], "context": row["context"], "answers": {"text": answers}}
