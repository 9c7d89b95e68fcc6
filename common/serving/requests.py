"""What a request to a served model may hold; everything else is refused with the reason.

Bodies are read strictly, before MLflow's server reads them. The server ignores parameters and keys that it does not know,
mixes the rows of "instances" whose keys differ, and answers in another format if a body looks like a chat.
"""

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types import DataType, ParamSpec

from .observed import observed
from .server_process import in_server

FORMATS = ("inputs", "instances", "dataframe_records", "dataframe_split")
BESIDE = ("params",)
SPLIT = ("columns", "data", "index")
CHATS = ("messages", "prompt", "input")

SURROGATE = re.compile(r"[\ud800-\udfff]")


def check_json(
    body: bytes | str, columns: Sequence[str], parameters: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """ValueError names the part of a JSON body that the server would ignore or misread.

    columns: what a row holds; parameters: what "params" may hold; optional: columns that all rows have, or none.
    """
    try:
        content = json.loads(body, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float)
    except json.JSONDecodeError as error:
        raise ValueError(f"The JSON is not valid: {error}.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"The JSON is not UTF-8: byte {error.start}.") from None
    form = json.dumps({"inputs": [dict.fromkeys(columns, "...")]})
    if not isinstance(content, dict):
        raise ValueError(f"The JSON must be an object such as {form}, not {_kind(content)}.")
    if chat := next((name for name in CHATS if name in content), None):
        raise ValueError(f"{chat!r} belongs to chat models; this one takes {form}.")
    check_known("The request has the key", content, (*FORMATS, *BESIDE))
    given = [name for name in FORMATS if name in content]
    if len(given) != 1:
        found = " and ".join(map(repr, given)) or "none"
        raise ValueError(f"The JSON must hold one of {', '.join(FORMATS)}, and holds {found}: send {form}.")
    params = content.get("params")
    if params is not None:
        if not isinstance(params, dict):
            raise ValueError(f"params must be an object, not {_kind(params)}.")
        check_known("The request has the parameter", params, parameters)
    _check_rows(given[0], content[given[0]], columns, optional)


def _check_rows(name: str, rows: Any, columns: Sequence[str], optional: Sequence[str]) -> None:
    if name == "dataframe_split":
        if not isinstance(rows, dict):
            raise ValueError(f"{name} must be an object with columns and data, not {_kind(rows)}.")
        check_known(f"{name} has the key", rows, SPLIT)
        names, data = rows.get("columns"), rows.get("data")
        if not isinstance(names, list) or not isinstance(data, list):
            raise ValueError(f"{name} must hold columns and data, each a list.")
        check_columns(name, names, columns, optional)
        for i, row in enumerate(data):
            if not isinstance(row, list) or len(row) != len(names):
                held = f"{len(row)} values" if isinstance(row, list) else _kind(row)
                raise ValueError(f"{name}: row {i} holds {held}; there are {len(names)} columns.")
            _check_cells(f"{name}: row {i}", zip(names, row, strict=True))
        index = rows.get("index")
        if index is not None and (not isinstance(index, list) or len(index) != len(data)):
            raise ValueError(f"{name}: index must be a list with an entry for each of the {len(data)} rows.")
    elif name == "inputs" and isinstance(rows, dict):
        check_columns(name, rows, columns, optional)
        _check_lists(name, rows)
    elif not isinstance(rows, list):
        raise ValueError(f"{name} must be a list of rows, not {_kind(rows)}.")
    elif not rows:
        raise ValueError(f"{name} holds no rows.")
    else:
        for i, row in enumerate(rows):
            if not isinstance(row, dict):
                raise ValueError(
                    f"{name}: row {i} must be an object with {' and '.join(columns)}, not {_kind(row)}."
                )
            check_columns(f"{name}: row {i}", row, columns, optional)
            # MLflow reads each column of "instances" by itself: cells would move to other rows.
            if uneven := [column for column in optional if (column in row) != (column in rows[0])]:
                raise ValueError(
                    f"{name}: row {i} and row 0 differ in {uneven[0]!r}; give null where it does not matter."
                )
            _check_cells(f"{name}: row {i}", row.items())


def _check_lists(place: str, lists: Mapping) -> None:
    """ValueError unless each column holds one text, or each a list of the same length."""
    if not all(isinstance(values, list) for values in lists.values()):
        if any(isinstance(values, list) for values in lists.values()):
            raise ValueError(f"{place}: the columns must all be lists, or all be single texts.")
        return _check_cells(place, lists.items())
    sizes = {name: len(values) for name, values in lists.items()}
    if len(set(sizes.values())) > 1:
        found = " and ".join(f"{size} of {name!r}" for name, size in sizes.items())
        raise ValueError(f"{place}: the columns differ in length: {found}.")
    for i, row in enumerate(zip(*lists.values(), strict=True)):
        _check_cells(f"{place}: row {i}", zip(lists, row, strict=True))


def _check_cells(place: str, cells: Iterable[tuple[str, object]]) -> None:
    """Refuse cells that MLflow would spread over several rows, or answer by repeating the request; the model checks the rest."""
    for name, value in cells:
        if isinstance(value, list | dict):
            raise ValueError(f"{place}: {name} must be a string, not {_kind(value)}.")
        if isinstance(value, str) and SURROGATE.search(value):
            raise ValueError(f"{place}: {name} holds a lone surrogate, which is not a character.")


def check_columns(
    place: str, names: Collection[str], columns: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """ValueError if the columns of a row or a table are not exactly the model's, with or without the optional ones."""
    check_known(f"{place} has", names, (*columns, *optional))
    if isinstance(names, list) and len(set(names)) < len(names):
        raise ValueError(f"{place}: a column occurs twice in {names}.")
    if missing := [name for name in columns if name not in names]:
        raise ValueError(f"{place} has no {missing[0]!r}.")


def check_known(place: str, given: Iterable, known: Sequence[str]) -> None:
    """ValueError if a name is not among the known ones; it suggests the closest one. place: such as "The request has"."""
    for name in given:
        if name not in known:
            text = str(name)[:50]
            near = difflib.get_close_matches(text.lower(), known, n=1, cutoff=0.5)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{place} {text!r}, which is not known{meant} Known: {', '.join(known)}.")


def _pairs(pairs: list) -> dict:
    found: dict = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"The key {name[:50]!r} occurs twice in one object.")
        found[name] = value
    return found


def _float(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text[:50]} is too large a number.")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON.")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def read_csv(text: str, columns: Sequence[str] | None, optional: Sequence[str] = ()) -> dict[str, list[str]]:
    """Column → its cells as text, in order, from a CSV body with a header; ValueError says what is wrong with the body.

    Nothing is guessed: "NA" and "5" stay text. columns: the names that the header must hold, None: any; optional: those
    that it may hold.
    """
    csv.field_size_limit(10**9)
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        names = next(reader, [])
        if len(names) == 1 and (other := re.search("[;\t|]", names[0])):
            raise ValueError(f"The CSV's columns must be separated by commas, not by {other[0]!r}.")
        check_columns("The CSV's header", names, names if columns is None else columns, optional)
        found: dict[str, list[str]] = {name: [] for name in names}
        blank = 0
        for row in reader:
            if not row:
                blank += 1
                continue
            if blank and len(names) == 1:
                # Not at the end, so it would be unclear which line an answer belongs to.
                raise ValueError(f"The CSV has an empty text above line {reader.line_num}.")
            if len(row) != len(names):
                raise ValueError(
                    f"The CSV has {len(row)} cells at line {reader.line_num}, and {len(names)} columns; put texts with commas "
                    "or line ends in double quotes."
                )
            for name, cell in zip(names, row, strict=True):
                found[name].append(cell)
    except csv.Error as error:
        raise ValueError(f"The CSV cannot be read at line {reader.line_num}: {error}.") from None
    return found


class Refusal(MlflowException):
    """A bad request. The reason cannot be changed, because MLflow's server would put the whole request before it."""

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(reason, INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        return self.reason

    @message.setter
    def message(self, _: str) -> None:
        pass


def refuse(reason: str) -> NoReturn:
    """Answer 400 with this reason."""
    raise Refusal(reason)


def checked_rows(
    model_input: pd.DataFrame, limits: Mapping[str, int | None], *, rows: int, characters: int
) -> list[dict]:
    """The rows of a request, each with the columns of `limits`: the most characters that each may have, None for any number.

    rows: the most that one request may have; characters: of the last column, over all rows. Both hold in a server alone.
    """
    try:
        check_columns("the data frame", list(model_input.columns), list(limits))
    except ValueError as error:
        refuse(str(error))
    # Not `to_dict`, which takes longer for the few rows of most requests.
    columns = (model_input[name].tolist() for name in limits)
    records = [dict(zip(limits, row, strict=True)) for row in zip(*columns, strict=True)]
    if len(records) == 1 and all(isinstance(value, list) for value in records[0].values()):
        # What MLflow makes of {"inputs": {"question": [...], "context": [...]}}.
        records = _of_columns(records[0])
    bounded = in_server()
    if bounded and len(records) > rows:
        refuse(f"{len(records)} rows in one request; at most {rows} are answered.")
    for i, record in enumerate(records):
        for name, limit in limits.items():
            _check_text(f"row {i}: {name}", record[name], limit)
    last = list(limits)[-1]
    total = sum(len(record[last]) for record in records)
    if bounded and total > characters:
        refuse(
            f"the {last}s of the request have {total} characters together; at most {characters} are answered."
        )
    observed().received(records)
    return records


def check_parameters(params: Mapping | None, known: Sequence[str]) -> None:
    """Refuse a parameter that the model does not know."""
    try:
        check_known("the request has the parameter", params or (), known)
    except ValueError as error:
        refuse(str(error))


PROMISED = {"max_error": None, "raw_scores": False}
"""What a request for answers with a confidence may leave out, or give as null: the share of wrong answers that is allowed, and
whether answers show their score before calibration too."""

PROMISED_SPECS = (
    ParamSpec("max_error", DataType.double, PROMISED["max_error"]),
    ParamSpec("raw_scores", DataType.boolean, PROMISED["raw_scores"]),
)

FURTHER = {"raw_score": DataType.double, "abstained": DataType.boolean}
"""What answers have beside where a request asks for it."""


def least_confidence(settings: Mapping, max_error: float | None) -> float | None:
    """The raw score below which a saved model with these settings abstains, None without a `max_error`.

    It is the threshold of the largest promised error that is not above `max_error`; a model that can promise none refuses.
    """
    if max_error is None:
        return None
    if not 0 < max_error < 1:
        refuse(f"max_error is {max_error:g}; it is a share of wrong answers, such as 0.1.")
    held = settings.get("abstention", {"thresholds": []})["thresholds"]
    # What is asked for may have gone through float32.
    below = [threshold for error, threshold in held if error <= max_error * (1 + 1e-6)]
    if not below or below[-1] is None:
        possible = ", ".join(f"{error:g}" for error, threshold in held if threshold is not None)
        refuse(
            f"max_error is {max_error:g}, which this model cannot promise; it can promise {possible or 'none'}. "
            "Leave max_error out to have every question answered."
        )
    return below[-1]


def abstaining(ranked: Sequence[dict], least: float | None, nothing: Mapping) -> list[dict]:
    """Answers, best first, each with `abstained`; only `nothing` with the best one's scores where that is below `least`.

    least: as `least_confidence` gives it; None leaves the answers as they are.
    """
    if least is None:
        return list(ranked)
    if ranked[0]["raw_score"] >= least:
        return [{**answer, "abstained": False} for answer in ranked]
    return [{**ranked[0], **nothing, "abstained": True}]


def best_first(ranked: Sequence[dict], top_k: int, raw_scores: bool) -> dict:
    """The best answer; with `top_k` above 1 also `alternatives`, the others. raw_scores: whether they keep `raw_score`."""
    hidden = () if raw_scores else ("raw_score",)
    best, *others = ({name: v for name, v in each.items() if name not in hidden} for each in ranked)
    return best | ({"alternatives": others} if top_k > 1 else {})


def as_frame(rows: Sequence[Mapping], asked: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Answers as a data frame, with the index of the request if there is one answer for each of its rows.

    columns: the columns of a frame without rows.
    """
    observed().answered(rows)
    index = asked.index if len(asked) == len(rows) else None
    return pd.DataFrame(list(rows), index=index, columns=None if rows else list(columns))


def in_force(limits: Mapping[str, int]) -> dict[str, int | None]:
    """The limits of a server's requests; outside of one none holds: a file's texts are as long as they are."""
    return dict(limits) if in_server() else dict.fromkeys(limits)


def is_within(record: Mapping[str, str], limits: Mapping[str, int]) -> bool:
    """Whether a request may hold this row; evaluation also answers rows that are longer."""
    return all(len(record[name]) <= limit and record[name].strip() for name, limit in limits.items())


def _of_columns(columns: Mapping[str, Sequence]) -> list[dict]:
    if len(set(map(len, columns.values()))) > 1:
        refuse(
            f"{' and '.join(f'{len(values)} {name}s' for name, values in columns.items())}: send one of each for every row."
        )
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _check_text(place: str, text: object, limit: int | None) -> None:
    if not isinstance(text, str):
        refuse(f"{place} must be a string, not {'null' if text is None else type(text).__name__}.")
    if not text.strip():
        refuse(f"{place} is empty.")
    if limit is not None and len(text) > limit:
        refuse(f"{place} has {len(text)} characters; at most {limit} are answered.")
    try:
        text.encode()
    except UnicodeEncodeError:
        refuse(f"{place} holds a lone surrogate, which is not a character.")
