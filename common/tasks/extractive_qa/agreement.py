"""Whether a stored model answers as its run recorded."""

import math
from collections.abc import Sequence

from ..interface import Answer, Row

TOLERANCE = {"fp32": 0.01, "fp16": 0.5, "bf16": 0.5}
"""Difference in score (a sum of two logits) between a run and its served model, which answers in float32 and with the
adapter merged: within it two candidates count as equally good. By the run's precision."""


def disagreements(
    recorded: Sequence[Row],
    answers: Sequence[Answer],
    threshold: float | None,
    tolerance: float,
    temperature: float = 1.0,
) -> list[str]:
    """A line for each question that is not answered as recorded.

    recorded: rows of a run's predictions/test.json; answers: `answer`, `score`, `start`, `end` for each. Another
    answer agrees if the run scored it within `tolerance` of its own. threshold: the margin that "no answer" needs, None
    where it is never given. temperature: of the served scores; the rows hold probabilities at 1.
    """
    wrong = []
    for row, answer in zip(recorded, answers, strict=True):
        worth = {
            (entry["start"], entry["end"]): entry["score"]
            - ((threshold or 0.0) if entry["start"] < 0 else 0.0)
            for entry in row["n_best"]
        }
        own = worth.get((row["start"], row["end"]), math.nan)
        place = (answer["start"], answer["end"])
        if place == (row["start"], row["end"]):
            probability = _calibrated(row, temperature)
            agrees = (
                answer["answer"] == row["prediction"]
                # A low temperature makes as much more of every difference.
                and abs(answer["score"] - probability) <= tolerance * max(1.0, 1 / temperature)
            )
        else:
            agrees = abs(worth.get(place, math.inf) - own) <= tolerance
        if not agrees:
            wrong.append(
                f"{row['id']}: {row['question']!r} was answered {row['prediction']!r} ({row['probability']:.3f}), "
                f"now {answer['answer']!r} ({answer['score']:.3f})"
            )
    return wrong


def _calibrated(row: Row, temperature: float) -> float:
    """The probability of a row's answer at a temperature: as it was recorded, or of the candidates that the row holds."""
    if "calibrated" in row:
        return float(row["calibrated"])
    if temperature == 1.0 or not row["n_best"]:
        return float(row["probability"])
    highest = max(entry["score"] for entry in row["n_best"])
    weight = {
        (entry["start"], entry["end"]): math.exp((entry["score"] - highest) / temperature)
        for entry in row["n_best"]
    }
    return weight[row["start"], row["end"]] / sum(weight.values())
