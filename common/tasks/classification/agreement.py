"""Whether a model that was loaded back labels texts as its run recorded."""

import math
from collections.abc import Mapping, Sequence

from ..interface import Answer, Row

TOLERANCE = {"fp32": 0.005, "fp16": 0.05, "bf16": 0.1}
"""Difference in the probability of a label between a run and its served model, which answers in float32 and with the
adapter merged. By the run's precision."""


def relabelled(recorded: Sequence[Row], answers: Sequence[Answer], tolerance: float) -> list[str]:
    """A line for each text that is not classified as recorded.

    recorded: rows of a run's predictions/test.json; answers: `label` and `score` for each. The probability must be the
    recorded one within `tolerance`; another label agrees if the run held it for as likely within `tolerance`.
    """
    wrong = []
    for row, answer in zip(recorded, answers, strict=True):
        label, score = answer["label"], answer["score"]
        known = row["probabilities"].get(label, -math.inf)
        if not (abs(score - known) <= tolerance and row["probability"] - known <= tolerance):
            wrong.append(
                f"{row['id']}: was {row['prediction']!r} ({row['probability']:.3f}), now {label!r} ({score:.3f})"
            )
    return wrong


def relabelled_sets(
    recorded: Sequence[Row], answers: Sequence[Answer], thresholds: Mapping[str, float], tolerance: float
) -> list[str]:
    """A line for each text whose labels are not those that were recorded.

    recorded: rows of a run's predictions/test.json; answers: `labels` and `scores` for each; thresholds: of each label. A
    probability must be the recorded one within `tolerance`; a label may be given or missing where the run's probability
    lay as close to its threshold.
    """
    wrong = []
    for row, answer in zip(recorded, answers, strict=True):
        known = row["probabilities"]
        given = dict(zip(answer["labels"], answer["scores"], strict=True))
        moved = [name for name, p in given.items() if not abs(p - known.get(name, -math.inf)) <= tolerance]
        changed = [
            name
            for name in given.keys() ^ set(row["prediction"])
            if not abs(known.get(name, -math.inf) - thresholds[name]) <= tolerance
        ]
        if moved or changed:
            wrong.append(f"{row['id']}: was {_listed(row['prediction'])}, now {_listed(sorted(given))}")
    return wrong


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no label"
