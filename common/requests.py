"""What a served model is asked about a text: limits of a request, and what is refused."""

from collections.abc import Mapping

import pandas as pd

from .serving import refuse

ASKED = ("question", "context")

MAX_QUESTION = 2_000
MAX_CONTEXT = 200_000
MAX_ROWS = 256
MAX_CHARACTERS = 400_000
MAX_ANSWER_LENGTH = 500
"""Characters of a question and of a context, rows and characters of a request, tokens of an answer: more could run into
the server's time-out."""


def checked_rows(model_input: pd.DataFrame) -> list[dict]:
    """`question` and `context` of every row; a request that cannot be answered is refused with its reason."""
    records = model_input[list(ASKED)].to_dict("records")
    if len(records) == 1 and all(isinstance(value, list) for value in records[0].values()):
        # What MLflow makes of {"inputs": {"question": [...], "context": [...]}}.
        columns = records[0].values()
        if len(set(map(len, columns))) > 1:
            refuse(
                f"{' and '.join(f'{len(values)} {name}s' for name, values in records[0].items())}: one of each, please."
            )
        records = [dict(zip(ASKED, values, strict=True)) for values in zip(*columns, strict=True)]
    if len(records) > MAX_ROWS:
        refuse(f"{len(records)} rows in one request; at most {MAX_ROWS} are answered.")
    for i, record in enumerate(records):
        for name, limit in (("question", MAX_QUESTION), ("context", MAX_CONTEXT)):
            text = record[name]
            if not isinstance(text, str):
                refuse(
                    f"row {i}: {name} must be a string, not {'null' if text is None else type(text).__name__}."
                )
            if not text.strip():
                refuse(f"row {i}: {name} is empty.")
            if len(text) > limit:
                refuse(f"row {i}: {name} has {len(text)} characters; at most {limit} are answered.")
            try:
                text.encode()
            except UnicodeEncodeError:
                refuse(f"row {i}: {name} holds a lone surrogate, which is no character.")
    characters = sum(len(record["context"]) for record in records)
    if characters > MAX_CHARACTERS:
        refuse(
            f"the contexts of the request have {characters} characters together; at most {MAX_CHARACTERS} are answered."
        )
    return records


def is_taken(record: Mapping[str, str]) -> bool:
    """Whether a served model takes this question, which evaluation may have answered all the same."""
    question, context = record["question"], record["context"]
    within = len(question) <= MAX_QUESTION and len(context) <= MAX_CONTEXT
    return within and bool(question.strip() and context.strip())


def check_length(max_answer_length: int | None) -> None:
    """Refuse an answer's length that is out of bounds; None stands for the model's own."""
    if max_answer_length is not None and not 1 <= max_answer_length <= MAX_ANSWER_LENGTH:
        refuse(f"max_answer_length is {max_answer_length}; choose 1 to {MAX_ANSWER_LENGTH} tokens.")
