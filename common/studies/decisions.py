"""Which seeds a stage with a `stop` leaves out, and what that saved. scoring/sequential.py has the method.

A candidate is a point of a technique: rows that differ in their seed alone. Where a later stage takes the best point of each
technique, the points of a technique are compared with each other, else all candidates of the stage; and only at the same
number of training examples, which is not tuned. Decisions follow from the scores of the finished rows alone, so a study that
goes on decides what it decided before.
"""

import dataclasses
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..counts import count_of
from ..scoring.names import LABELS
from ..scoring.sequential import Decided, Rule, Standing, over_examples, standing
from .checks import shown
from .fields import SAMPLES

if TYPE_CHECKING:
    from .declaration import Row, Stage, Study
    from .status import Entry, Status


def candidate_of(row: "Row") -> str:
    """A row's name without its seed."""
    return row.name.rpartition("-seed=")[0]


def due(
    study: "Study", stage: "Stage", entries: Sequence["Entry"], metric: str, again: Collection[str] = ()
) -> set[str]:
    """Names of the rows that the next look of each comparison of a stage needs.

    entries: of the whole stage. again: names of failed rows that are trained again.
    """
    return {
        of[candidate][seed].row.name
        for of, found in _comparisons(study, stage, entries, metric, again)
        for candidate, seed in found.wanted
    }


def settled(study: "Study", stage: "Stage", entries: Sequence["Entry"], metric: str) -> list["Entry"]:
    """The entries of a stage: those of a candidate that is decided have the decision, and rows that are left out are
    "stopped"."""
    changed: dict[str, Entry] = {}
    planned = len(stage.seeds)
    for of, found in _comparisons(study, stage, entries, metric):
        decided = {each.candidate: each for each in found.decided}
        for candidate, rows in of.items():
            decision = decided.get(candidate)
            if decision:
                why = sentence(decision, planned, metric)
            elif not found.wanted and found.leader == candidate:
                why = "every other candidate was decided before this seed"
            else:
                continue
            for entry in rows:
                entry = dataclasses.replace(entry, decision=decision)
                if entry.status == "pending":
                    entry = dataclasses.replace(entry, status="stopped", reason=why)
                changed[entry.row.name] = entry
    return [changed.get(entry.row.name, entry) for entry in entries]


def sentence(decided: Decided, planned: int, metric: str) -> str:
    """Why a candidate has no further seeds."""
    after = count_of(decided.seeds, "seeds")
    if math.isnan(decided.bound):
        return f"no score after {after}: its runs failed"
    label, apart = LABELS[metric], abs(decided.difference)
    side = "behind" if decided.difference <= 0 else "ahead of"
    end = f"{abs(decided.bound):.1f} {'ahead' if decided.bound >= 0 else 'behind'}"
    least = "at most" if decided.bound >= 0 else "at least"
    return f"decided after {after}: validation {label} {apart:.1f} {side} {decided.leader}; with all {planned} seeds {least} {end}"


def extent(status: "Status", entries: Sequence["Entry"]) -> str:
    """How many rows a study with a `stop` trains, in one sentence; "" for another study."""
    stages = {stage.name: stage for stage in status.study.stages}
    if not any(stage.stop for stage in stages.values()):
        return ""
    most = sum(entry.status != "stopped" for entry in entries)
    least = 0
    for name, stage in stages.items():
        of_stage = [entry for entry in entries if entry.row.stage == name]
        wanted = due(status.study, stage, of_stage, status.task.metric) if stage.stop else set()
        for entry in of_stage:
            first = entry.status == "undecided" and entry.row.args.seed == stage.seeds[0]
            open_ = entry.row.name in wanted or first or not stage.stop
            least += entry.status in ("finished", "failed") or open_
    return f"`stop`: at least {least} and at most {most} of {len(entries)} rows are trained; the time left is that of all."


def record(status: "Status", entries: Sequence["Entry"]) -> list[dict[str, Any]]:
    """What was decided early in each stage with a `stop`, for the report: the rule, a row for each candidate, and the time that
    was saved, in seconds of whole rows as far as they were measured."""
    found = []
    for stage in status.study.stages:
        of_stage = [entry for entry in entries if entry.row.stage == stage.name]
        if not stage.stop or not of_stage or any(entry.status == "undecided" for entry in of_stage):
            continue
        rows = []
        for of, now in _comparisons(status.study, stage, of_stage, status.task.metric):
            decided = {each.candidate: each for each in now.decided}
            rows += [_record(status, stage, of, name, decided.get(name), now) for name in of]
        found.append(
            {
                "stage": stage.name,
                "rule": dataclasses.asdict(stage.stop),
                "planned": len(of_stage),
                "left_out": sum(row["left_out"] for row in rows),
                "saved_seconds": sum(row["saved_seconds"] for row in rows),
                "spent_seconds": sum(_seconds(status, entry) for entry in of_stage),
                "candidates": rows,
            }
        )
    return found


def _record(
    status: "Status",
    stage: "Stage",
    of: Mapping[str, Sequence["Entry"]],
    name: str,
    decided: Decided | None,
    now: Standing,
) -> dict[str, Any]:
    rows = of[name]
    ran = [_seconds(status, entry) for entry in rows if entry.status == "finished"]
    left_out = sum(entry.status == "stopped" for entry in rows)
    held: dict[str, Any] = {
        "candidate": name,
        "leads": name == now.leader,
        "done": len(ran),
        "planned": len(rows),
        "left_out": left_out,
        "saved_seconds": left_out * (sum(ran) / len(ran) if ran else 0.0),
    }
    if decided:
        # JSON has no NaN.
        held |= {k: None if v != v else v for k, v in dataclasses.asdict(decided).items()}
        pairs = zip(rows[: decided.seeds], of[decided.leader][: decided.seeds], strict=True)
        values = _differences(status, pairs)
        if len(values) > 1:
            held["low"], held["high"] = over_examples(values, decided.error)
    return held


def _differences(status: "Status", pairs: Iterator[tuple["Entry", "Entry"]]) -> np.ndarray:
    """(N,) points by which a candidate's validation examples differ from the leader's, means over the seeds that asked them."""
    each: dict[str, list[float]] = {}
    for pair in pairs:
        files = [_validated(status.folder.row(entry.row.name)) for entry in pair]
        if not all(file.is_file() for file in files):
            continue
        one, other = (json.loads(file.read_text(encoding="utf-8")) for file in files)
        for id_ in one.keys() & other.keys():
            metric = status.task.metric
            each.setdefault(id_, []).append(100 * (one[id_][metric] - other[id_][metric]))
    return np.array([np.mean(values) for values in each.values()])


def _validated(folder: Path) -> Path:
    return folder / "predictions" / "validation_scores.json"


def _seconds(status: "Status", entry: "Entry") -> float:
    """What a finished row took; 0 for another."""
    if entry.status != "finished":
        return 0.0
    return status.seconds(entry.row) or entry.seconds or entry.metrics.get("training_seconds", 0.0)


def _comparisons(
    study: "Study", stage: "Stage", entries: Sequence["Entry"], metric: str, again: Collection[str] = ()
) -> Iterator[tuple[dict[str, list["Entry"]], Standing]]:
    """(candidate → its rows by seed, what is known) of each comparison of a stage."""
    assert stage.stop is not None
    swept = any(other.best_of == stage.name for other in study.stages)
    groups: dict[tuple[str, ...], dict[str, list[Entry]]] = {}
    for entry in entries:
        sizes = [shown(entry.row.point[axis]) for axis in SAMPLES if axis in entry.row.point]
        of = groups.setdefault((entry.row.entry if swept else "", *sizes), {})
        of.setdefault(candidate_of(entry.row), []).append(entry)
    rule = Rule(len(stage.seeds), stage.stop.smallest_difference, stage.stop.error, stage.stop.seed_sd)
    for of in groups.values():
        scores = {name: [_score(entry, metric, again) for entry in rows] for name, rows in of.items()}
        if len(of) == 1 and not swept:
            # Nothing is compared, and its seeds are wanted for themselves.
            ((name, row),) = scores.items()
            yield of, Standing(name, (), tuple((name, i) for i, score in enumerate(row) if score is None))
            continue
        yield of, standing(scores, rule)


def _score(entry: "Entry", metric: str, again: Collection[str]) -> float | None:
    if entry.status == "finished":
        return entry.metrics.get(f"best_validation_{metric}", math.nan)
    return math.nan if entry.status == "failed" and entry.row.name not in again else None
