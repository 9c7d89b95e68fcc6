"""What a served model may be asked about a text: limits of a request, and what is refused."""

from collections.abc import Mapping

import pandas as pd

from . import request_checks
from .serving import refuse

MAX_QUESTION = 2_000
MAX_CONTEXT = 200_000
MAX_ROWS = 256
MAX_CHARACTERS = 400_000
MAX_ANSWER_LENGTH = 500
"""Characters of a question and of a context, rows and characters of a request, tokens of an answer: more could run into
the server's time-out."""

ASKED = {"question": MAX_QUESTION, "context": MAX_CONTEXT}
"""The columns of a request and the most characters in each."""


def checked_rows(model_input: pd.DataFrame) -> list[dict]:
    """`question` and `context` of every row; a request that cannot be answered is refused with its reason."""
    return request_checks.checked_rows(model_input, ASKED, rows=MAX_ROWS, characters=MAX_CHARACTERS)


def is_taken(record: Mapping[str, str]) -> bool:
    """Whether a served model takes this question, which evaluation may have answered all the same."""
    return request_checks.is_within(record, ASKED)


def check_length(max_answer_length: int | None) -> None:
    """Refuse an answer's length that is out of bounds; None stands for the model's own."""
    if max_answer_length is not None and not 1 <= max_answer_length <= MAX_ANSWER_LENGTH:
        refuse(f"max_answer_length is {max_answer_length}; choose 1 to {MAX_ANSWER_LENGTH} tokens.")
