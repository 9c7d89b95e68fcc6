"""What follows from the finished rows of a study: the best point, whether it lies at an edge, the time that is left."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .checks import shown
from .declaration import ONLY_STAGE, Point, Row
from .fields import SAMPLES
from .search import Spaces

_MORE = {"highest": "higher", "lowest": "lower"}


def best_points(rows: Sequence[Row], scores: Mapping[str, float | None]) -> dict[str, Point]:
    """Entry → the point with the best mean score over its seeds.

    scores: row name → validation score; rows without one are ignored. Among equals the first declared is best.
    """
    found: dict[str, tuple[float, Point]] = {}
    for key, point, mean in _means(rows, scores):
        if key not in found or mean > found[key][0]:
            found[key] = (mean, point)
    return {key: point for key, (_, point) in found.items()}


def edges(
    rows: Sequence[Row], scores: Mapping[str, float | None], searches: Mapping[str, Spaces] | None = None
) -> list[str]:
    """A sentence for each axis on which a technique's best point lies at an end of the values that were tried, or of the
    space that was searched.

    searches: entry → its spaces. Only numbers have ends. The amount of data is left out: it is not tuned.
    """
    sentences = []
    for key, point in best_points(rows, scores).items():
        of_key = [row for row in rows if row.entry == key]
        of_stage = "" if of_key[0].stage == ONLY_STAGE else f" of {of_key[0].stage}"
        for axis, value in point.items():
            space = (searches or {}).get(key, {}).get(axis)
            if space is not None and axis not in SAMPLES:
                if word := space.end(value):
                    sentences.append(
                        f"{of_key[0].title}: the best {axis}{of_stage}, {shown(value)}, is near the {word} that "
                        f"was searched ({shown(min(space.values))} to {shown(max(space.values))}); {_MORE[word]} values may be "
                        "better."
                    )
                continue
            tried = sorted({row.point[axis] for row in of_key if _is_number(row.point[axis])})
            if axis in SAMPLES or len(tried) < 2 or value not in (tried[0], tried[-1]):
                continue
            word = "highest" if value == tried[-1] else "lowest"
            sentences.append(
                f"{of_key[0].title}: the best {axis}{of_stage}, {shown(value)}, is the {word} that was "
                f"tried ({', '.join(map(shown, tried))}); {_MORE[word]} values may be better."
            )
    return sentences


@dataclass(frozen=True)
class Work:
    """What the time of a row depends on."""

    key: str
    """Which of the study's techniques."""
    checkpoint: str
    amount: float
    """Epochs × training examples."""
    passed: float = 0.0
    """Seconds that it has already run."""


@dataclass(frozen=True)
class Cost:
    """What a finished row took, in seconds."""

    work: Work
    training: float
    whole: float | None
    """From the start of its process to its end; None if that was not measured."""


def estimate(finished: Sequence[Cost], left: Sequence[Work]) -> float | None:
    """Seconds that the rows that are left will take, each as a whole, one after another; None if nothing was measured.

    Training time is assumed to be proportional to the amount, at the rate of the most similar rows. Everything else (start,
    tokens, evaluation, test, logging) is assumed to take as long as in those of them that are nearest in amount.
    """
    if not left:
        return 0.0
    if not sum(cost.work.amount for cost in finished):
        return None
    return sum(max(0.0, _seconds(finished, work) - work.passed) for work in left)


def _seconds(finished: Sequence[Cost], work: Work) -> float:
    def alike(*fields: str) -> list[Cost]:
        return [c for c in finished if all(getattr(c.work, f) == getattr(work, f) for f in fields)]

    # Checkpoints differ more than techniques do.
    groups = [alike("key", "checkpoint"), alike("checkpoint"), alike("key"), list(finished)]
    like = next(group for group in groups if sum(cost.work.amount for cost in group))
    rate = sum(cost.training for cost in like) / sum(cost.work.amount for cost in like)
    whole = next((known for group in groups if (known := [c for c in group if c.whole is not None])), [])
    distance = min((abs(cost.work.amount - work.amount) for cost in whole), default=0)
    nearest = [cost for cost in whole if abs(cost.work.amount - work.amount) == distance]
    rest = [cost.whole - cost.training for cost in nearest if cost.whole is not None]
    return rate * work.amount + max(0.0, statistics.median(rest) if rest else 0.0)


def amount(row: Row, examples: int) -> float:
    """How much a row trains on: epochs × examples. examples: how many the training split has."""
    return row.technique.num_train_epochs * min(row.args.max_train_samples or examples, examples)


def record(
    row: Row, axes: Sequence[str], status: str, run_id: str | None = None, failure: str = ""
) -> dict[str, Any]:
    """The first columns of a study's table, before the measured ones: what a row is and its status."""
    return {
        "stage": row.stage,
        "name": row.name,
        "technique": row.title,
        "checkpoint": row.args.model_checkpoint,
        **{axis: row[axis] for axis in axes},
        "seed": row.args.seed,
        "status": status,
        "run_id": run_id,
        "failure": failure,
    }


def columns(metrics: Sequence[str]) -> list[str]:
    """The measured columns of a study's table; scores in percent, times in seconds, sizes in MiB."""
    scores = [f"best_validation_{metric}" for metric in metrics]
    scores += [f"test_{metric}{end}" for metric in metrics for end in ("", "_low", "_high")]
    costs = "test_examples trainable_parameters total_parameters training_seconds train_samples_per_second"
    return scores + costs.split() + ["peak_memory_mib", "evaluation_samples_per_second", "adapter_mib"]


def _means(rows: Sequence[Row], scores: Mapping[str, float | None]) -> list[tuple[str, Point, float]]:
    """(entry, point, mean score) for every point that has a score."""
    groups: dict[tuple[Any, ...], tuple[str, Point, list[float]]] = {}
    for row in rows:
        group = (row.entry, *((axis, shown(value)) for axis, value in row.point.items()))
        _, _, found = groups.setdefault(group, (row.entry, row.point, []))
        score = scores.get(row.name)
        if score is not None and math.isfinite(score):
            found.append(score)
    return [(key, point, sum(found) / len(found)) for key, point, found in groups.values() if found]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
