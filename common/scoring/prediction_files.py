"""Files of predictions and of probabilities, in the format of the official SQuAD evaluation scripts."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..counts import count_of
from ..errors import UserError
from ..files import read_text

_NAMED = 5
"""How many ids a message names."""


def read_predictions(path: Path) -> dict[str, str]:
    """Question id → answer; UserError if the file holds anything else."""
    content = _read_object(path, '"answer"')
    for id_, text in content.items():
        if not isinstance(text, str):
            raise UserError(f'{path}: the prediction for {id_!r} is no string ("" means no answer).')
    return content


def read_no_answer_probabilities(path: Path) -> dict[str, float]:
    """Question id → probability of no answer; UserError if the file holds anything else."""
    content = _read_object(path, "number")
    for id_, value in content.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise UserError(f"{path}: the value for {id_!r} is no number.")
    return content


def differences(ids: Sequence[str], predictions: Mapping[str, str], version: str) -> list[str]:
    """A sentence each about questions without prediction and predictions without question.

    ids: of the questions. version: "v1.1" or "v2.0", whose rules decide what a missing prediction does.
    """
    known = set(ids)
    missing = [id_ for id_ in ids if id_ not in predictions]
    unknown = [id_ for id_ in predictions if id_ not in known]
    effect = "score 0" if version == "v1.1" else "are left out"
    found = []
    if missing:
        found.append(
            f"{len(missing)} of {len(known)} questions have no prediction and {effect}: {_some(missing)}"
        )
    if unknown:
        one = "prediction is for another question and is ignored"
        told = count_of(len(unknown), "predictions are for other questions and are ignored", one)
        found.append(f"{told}: {_some(unknown)}")
    return found


def _read_object(path: Path, value: str) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f'{path} must hold one JSON object, {{"question id": {value}, ...}}.')
    return content


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
