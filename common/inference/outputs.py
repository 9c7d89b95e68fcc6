"""Answers → files: predictions, n-best lists and probabilities of "no answer" as the official SQuAD scripts read them, and CSV."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..atomic import atomic_write
from ..errors import UserError

Answered = Mapping[str, Any]
"""`id`, `answer` (or `label`, or `labels`), `score` (or `scores`), and what else was asked for."""


@dataclass(frozen=True)
class Outputs:
    """Where answers go. UserError if two of the files are one, or a folder is in the place of one."""

    predictions: Path
    """{id: answer}; "" for no answer."""
    n_best: Path | None = None
    """{id: [{text, probability, start, end}, ...]}, best first."""
    null_odds: Path | None = None
    """{id: probability of "no answer" against the best answer}."""
    csv: Path | None = None
    """A row for each example."""

    def __post_init__(self) -> None:
        places = [p.resolve() for p in (self.predictions, self.n_best, self.null_odds, self.csv) if p]
        if len(set(places)) < len(places):
            raise UserError("Two of the outputs are the same file: name a file for each.")
        for place in places:
            if place.is_dir():
                raise UserError(f"{place} is a folder: name a file in it.")

    def write(self, answers: Callable[[], Iterable[Answered]]) -> list[Path]:
        """Write the files, each whole or not at all, in the order of the answers, which are read once for each; their paths."""
        written = [_write(self.predictions, answers(), _objects(_given))]
        if self.n_best:
            written.append(_write(self.n_best, answers(), _objects(_candidates)))
        if self.null_odds:
            written.append(_write(self.null_odds, answers(), _objects(_no_answer)))
        if self.csv:
            written.append(_write(self.csv, answers(), _table))
        return written


def _write(
    target: Path, answers: Iterable[Answered], form: Callable[[TextIO, Iterable[Answered]], None]
) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_write(target, durable=True) as part,
            open(part, "w", encoding="utf-8", newline="") as file,
        ):
            form(file, answers)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from None
    return target


def _objects(value: Callable[[Answered], Any]) -> Callable[[TextIO, Iterable[Answered]], None]:
    """Writes one JSON object, an id and its value on each line, without holding them all."""

    def form(file: TextIO, answers: Iterable[Answered]) -> None:
        file.write("{")
        for number, answer in enumerate(answers):
            row = f"{json.dumps(answer['id'], ensure_ascii=False)}: {json.dumps(value(answer), ensure_ascii=False)}"
            file.write(("\n" if number == 0 else ",\n") + row)
        file.write("\n}\n")

    return form


def _given(answer: Answered) -> Any:
    """The answer, the label, or the list of labels."""
    return next(answer[name] for name in ("answer", "label", "labels") if name in answer)


def _candidates(answer: Answered) -> list[dict[str, Any]]:
    if "labels" in answer:
        own = zip(answer["labels"], answer["scores"], strict=True)
        ranked: list[Answered] = [{"label": label, "score": score} for label, score in own]
    else:
        ranked = [answer]
    ranked += answer.get("alternatives") or ()
    return [
        {"text": _given(each), "probability": each["score"]}
        | {place: each[place] for place in ("start", "end") if place in each}
        for each in ranked
    ]


def _no_answer(answer: Answered) -> float:
    odds = float(answer["null_odds"])
    # Either form is exact where the other one overflows.
    return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))


def _table(file: TextIO, answers: Iterable[Answered]) -> None:
    writer: Any = None
    for answer in answers:
        row = {
            name: "; ".join(map(str, value)) if isinstance(value, list) else value
            for name, value in answer.items()
            if name != "alternatives"
        }
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
