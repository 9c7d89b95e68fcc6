"""What a model may be asked about a text: the limits of a server's requests, and what is refused everywhere."""

from collections.abc import Mapping

import pandas as pd
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType

from . import requests
from .requests import refuse

MAX_QUESTION = 2_000
MAX_CONTEXT = 200_000
MAX_ROWS = 256
MAX_CHARACTERS = 400_000
MAX_ANSWER_LENGTH = 500
"""Characters of a question and of a context, rows and characters of a request, tokens of an answer: more could run into
the server's time-out."""

ASKED = {"question": MAX_QUESTION, "context": MAX_CONTEXT}
"""The columns of a request and the most characters in each."""

# Not string: MLflow would turn null into "None" and 5 into "5" before `predict` can refuse them.
INPUTS = Schema([ColSpec(AnyType(), name) for name in ASKED])

ANSWER = {
    "answer": DataType.string,
    "score": DataType.double,
    "start": DataType.long,
    "end": DataType.long,
}

CONFIG = {"max_context": MAX_CONTEXT}
"""Settings of a served model: MLflow's `model_config`, or `SERVING_MODEL_CONFIG` as JSON for its server."""


def context_limit(config: Mapping | None) -> int:
    """The most characters of a context, from a model's configuration; older models have none."""
    limit = (config or CONFIG).get("max_context", MAX_CONTEXT)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        refuse(f"max_context is {limit!r}; it must be a number of characters, 1 or more.")
    return limit


def checked_rows(model_input: pd.DataFrame, max_context: int = MAX_CONTEXT) -> list[dict]:
    """`question` and `context` of every row; a request that cannot be answered is refused with its reason.

    max_context: of a model's configuration. One that was set holds outside of a server too.
    """
    limits = requests.in_force(ASKED | {"context": max_context})
    if max_context != MAX_CONTEXT:
        limits["context"] = max_context
    return requests.checked_rows(
        model_input,
        limits,
        rows=MAX_ROWS,
        characters=max(MAX_CHARACTERS, max_context),
    )


def is_taken(record: Mapping[str, str]) -> bool:
    """Whether a served model accepts this question; evaluation also answers questions that are longer."""
    return requests.is_within(record, ASKED)


def check_length(max_answer_length: int | None) -> None:
    """Refuse a length of answers that is out of bounds; None stands for the model's own."""
    if max_answer_length is not None and not 1 <= max_answer_length <= MAX_ANSWER_LENGTH:
        refuse(f"max_answer_length is {max_answer_length}; choose 1 to {MAX_ANSWER_LENGTH} tokens.")
