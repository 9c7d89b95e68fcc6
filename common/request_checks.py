"""What a request to a served model may hold; everything else is refused with the reason."""

from collections.abc import Mapping, Sequence

import pandas as pd

from .request_body import check_columns, check_known
from .serving import refuse


def checked_rows(
    model_input: pd.DataFrame, limits: Mapping[str, int], *, rows: int, characters: int
) -> list[dict]:
    """The rows of a request, each with the columns of `limits`: the most characters that each may have.

    rows: the most that one request may have; characters: of the last column, over all rows.
    """
    try:
        check_columns("the data frame", list(model_input.columns), list(limits))
    except ValueError as error:
        refuse(str(error))
    records = model_input[list(limits)].to_dict("records")
    if len(records) == 1 and all(isinstance(value, list) for value in records[0].values()):
        # What MLflow makes of {"inputs": {"question": [...], "context": [...]}}.
        records = _of_columns(records[0])
    if len(records) > rows:
        refuse(f"{len(records)} rows in one request; at most {rows} are answered.")
    for i, record in enumerate(records):
        for name, limit in limits.items():
            _check_text(f"row {i}: {name}", record[name], limit)
    last = list(limits)[-1]
    total = sum(len(record[last]) for record in records)
    if total > characters:
        refuse(
            f"the {last}s of the request have {total} characters together; at most {characters} are answered."
        )
    return records


def check_parameters(params: Mapping | None, known: Sequence[str]) -> None:
    """Refuse a parameter that the model does not know."""
    try:
        check_known("the request has the parameter", params or (), known)
    except ValueError as error:
        refuse(str(error))


def as_frame(rows: Sequence[Mapping], asked: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Answers as a data frame, under the index of what was asked where there is one answer to each of its rows.

    columns: of a frame without rows.
    """
    index = asked.index if len(asked) == len(rows) else None
    return pd.DataFrame(list(rows), index=index, columns=None if rows else list(columns))


def is_within(record: Mapping[str, str], limits: Mapping[str, int]) -> bool:
    """Whether a request may hold this row, which evaluation may have answered all the same."""
    return all(len(record[name]) <= limit and record[name].strip() for name, limit in limits.items())


def _of_columns(columns: Mapping[str, Sequence]) -> list[dict]:
    if len(set(map(len, columns.values()))) > 1:
        refuse(
            f"{' and '.join(f'{len(values)} {name}s' for name, values in columns.items())}: one of each, please."
        )
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _check_text(place: str, text, limit: int) -> None:
    if not isinstance(text, str):
        refuse(f"{place} must be a string, not {'null' if text is None else type(text).__name__}.")
    if not text.strip():
        refuse(f"{place} is empty.")
    if len(text) > limit:
        refuse(f"{place} has {len(text)} characters; at most {limit} are answered.")
    try:
        text.encode()
    except UnicodeEncodeError:
        refuse(f"{place} holds a lone surrogate, which is no character.")
