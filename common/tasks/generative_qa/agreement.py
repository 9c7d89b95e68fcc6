"""Whether a stored model writes as its run recorded."""

import math
from collections.abc import Sequence

from ..interface import Answer, Row
from .writing import tempered

TOLERANCE = {"fp32": 0.01, "fp16": 0.5, "bf16": 0.5}
"""Difference in the logarithm of an answer's probability between a run and its served model, which answers in float32 and
with the adapter merged: within it two answers count as equally good. By the run's precision."""


def rewritten(
    recorded: Sequence[Row], answers: Sequence[Answer], tolerance: float, temperature: float = 1.0
) -> list[str]:
    """A line for each question that is not answered as recorded.

    recorded: rows of a run's predictions/test.json; answers: `answer` and `score` for each. Another answer agrees if its
    probability is that of the run's, up to a factor of exp(tolerance): rounding decides which of the two is written.
    temperature: of the served scores; the rows hold probabilities at 1.
    """
    wrong = []
    for row, answer in zip(recorded, answers, strict=True):
        expected = tempered(row["score"], temperature)
        worth, own = (math.log(max(score, 1e-300)) for score in (answer["score"], expected))
        # A low temperature makes as much more of every difference.
        if answer["answer"] != row["prediction"] and abs(worth - own) > tolerance * max(1.0, 1 / temperature):
            wrong.append(
                f"{row['id']}: {row['question']!r} was answered {row['prediction']!r} ({row['score']:.3f}), "
                f"now {answer['answer']!r} ({answer['score']:.3f})"
            )
    return wrong
