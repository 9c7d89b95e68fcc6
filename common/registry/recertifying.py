"""The promises of a model whose network was converted: its confidence is not quite what it was, so they are certified again."""

from pathlib import Path
from typing import Any

import numpy as np

from ..data.record import DataRecord
from ..scoring import abstention
from ..serving import model_logging
from ..tasks.interface import Example, Task
from ..training.confidence import Confidence, number_of


def settings(
    task: Task,
    bundle: Path,
    before: dict[str, Any],
    validation: list[Example],
    record: DataRecord | None,
    choices: int,
) -> dict[str, Any]:
    """A saved model's settings with the promises that its own answers to validation certify.

    bundle: the model with its base inside. before: its settings. validation: the prepared data's, empty where it is not at hand:
    then nothing is promised. choices: as `abstention.certify` takes it. The temperature stays.
    """
    if "abstention" not in before:
        return before
    served = model_logging.module_of(task)
    examples = [task.named(example, record) for example in validation] if record else []
    asked = [task.request(example) for example in examples]
    taken = [i for i, each in enumerate(asked) if served.is_taken(each)]
    answers = served.best_answers(bundle, [asked[i] for i in taken])
    right: np.ndarray = np.zeros(0, dtype=bool)
    groups: list[str] | None = None
    if taken and record:
        groups = task.groups([examples[i] for i in taken], record)
        right = task.right_of(task.judged(answers, [examples[i] for i in taken])[1])
    promises = abstention.certify(
        np.array([answer["raw_score"] for answer in answers]), right, choices=choices, groups=groups
    )
    found = Confidence(before.get("temperature", 1.0), tuple(promises), len(right), number_of(groups))
    return before | found.settings()
