"""Gaps in MLflow's scoring server that a request meets before it reaches a model; the model closes them.

By itself the server answers 500 to JSON that is nested too deeply, to a number of 5,000 digits and to a request without a
content type. It sends a traceback, or the whole request, back for every CSV or Parquet body that it cannot read. It holds a
body of any size in memory, cannot read CSV for this signature, and drops what it does not know (`requests`).
"""

import functools
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.types import Schema

from .following import FOLLOW, Answering
from .observed import observed
from .requests import check_columns, check_json, read_csv
from .server_application import LARGEST_BODY, put_application, too_large
from .server_process import SERVER, in_server

PARQUET = "application/vnd.apache.parquet"

LONGEST_REASON = 1000

_log = logging.getLogger(__name__)


def guard_server(folder: Path) -> None:
    """Put `guarded` around the server's handling of requests, if this process is a server. folder: of the stored model."""
    server: Any = sys.modules.get(SERVER)
    if server is not None and not hasattr(server.invocations, "__wrapped__"):
        answering = Answering(folder, os.environ.get(FOLLOW) or None) if in_server() else None
        server.invocations = guarded(server.invocations, server.InvocationsResponse, answering)
        server._parse_json_data = checked(server._parse_json_data)
        server.parse_csv_input = functools.wraps(server.parse_csv_input)(parse_csv)
        if answering is not None:
            put_application(answering)


def guarded(
    invocations: Callable[..., Any], response: Callable[..., Any], answering: Answering | None = None
) -> Callable[..., Any]:
    """`invocations` (data, content type, model, ...) that refuses what it cannot read, with a plain reason and no traceback.

    response: creates the return value of `invocations` from text, status and type. answering: says which model answers; None:
    the one that is given.
    """

    @functools.wraps(invocations)
    def answer(data: bytes, content_type: str | None, model: Any, input_schema: Schema) -> Any:
        if answering is not None:
            seen = observed().current.get()
            if seen and seen.chosen is not None:
                model = seen.chosen
            else:
                model, version = answering.of_request(model)
                if seen:
                    seen.version = version
            input_schema = model.metadata.get_input_schema()
        if not content_type:
            return response("Send a Content-Type: application/json.", 415, "text/plain")
        if len(data) > LARGEST_BODY:
            return response(too_large(len(data)), 413, "text/plain")
        try:
            kind = _plain_type(content_type)
            if kind.partition(";")[0] == PARQUET:
                check_parquet(data, *columns_of(model.metadata.get_input_schema()))
            return invocations(_decodable(data, content_type), kind, model, input_schema)
        except MlflowException as error:
            if trace := error.json_kwargs.pop("stack_trace", None):
                _log.warning("A request was refused: %s\n%s", reason(error.message), trace)
            error.message = reason(error.message)
            raise
        except RecursionError:
            raise MlflowException("The JSON is nested too deeply.", BAD_REQUEST) from None
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            # Only reading the request raises these: MLflow has wrapped a model's errors into MlflowException.
            _log.info("A request could not be read", exc_info=error)
            raise MlflowException(f"The request cannot be read: {reason(str(error))}", BAD_REQUEST) from None

    return answer


def _plain_type(content_type: str) -> str:
    """The type as MLflow spells it: in HTTP the case of types and charsets does not matter, and values may be quoted."""
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    return "; ".join([kind.lower(), *(each.replace('"', "").lower() for each in parameters)])


def _decodable(data: bytes, content_type: str) -> bytes:
    if content_type.lower().startswith("text/csv"):
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"The CSV is not UTF-8: byte {error.start}.") from None
    return data


def checked(parse: Callable[..., Any]) -> Callable[..., Any]:
    """MLflow's `_parse_json_data` (body, the model's metadata, ...) behind `check_json`; its server and `mlflow models
    predict` both call it."""

    @functools.wraps(parse)
    def parsed(data: bytes | str, metadata: Any, *args: Any, **kwargs: Any) -> Any:
        parameters = [param.name for param in metadata.get_params_schema() or ()]
        columns, optional = columns_of(metadata.get_input_schema())
        check_json(data, columns, parameters, optional)
        return parse(data, metadata, *args, **kwargs)

    return parsed


def columns_of(schema: Schema) -> tuple[list[str], list[str]]:
    """(the columns that each row of a request holds, those that it may hold)."""
    return schema.required_input_names(), schema.optional_input_names()


def check_parquet(body: bytes, columns: Sequence[str], optional: Sequence[str] = ()) -> None:
    """ValueError if a Parquet body has unknown columns, which MLflow would drop, or unpacks to more bytes than a body may
    have."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(io.BytesIO(body))
    except (ArrowException, OSError) as error:
        raise ValueError(f"The Parquet is not valid: {error}") from None
    groups = range(file.metadata.num_row_groups)
    size = sum(file.metadata.row_group(i).total_byte_size for i in groups)
    if max(size, file.metadata.num_rows) > LARGEST_BODY:
        raise ValueError(f"The Parquet unpacks to {size} bytes; at most {LARGEST_BODY} are read.")
    index = (file.schema_arrow.pandas_metadata or {}).get("index_columns", ())
    names = [name for name in file.schema_arrow.names if name not in index]
    check_columns("The Parquet", names, columns, optional)


def parse_csv(csv_input: str | Path | TextIO, schema: Schema | None = None) -> pd.DataFrame:
    """Replaces MLflow's `parse_csv_input`: every cell is text. csv_input: a path or a stream."""
    text = Path(csv_input).read_text("utf-8") if isinstance(csv_input, str | Path) else csv_input.read()
    # `mlflow models predict` gives no schema.
    columns, optional = (None, []) if schema is None else columns_of(schema)
    return pd.DataFrame(read_csv(text, columns, optional), dtype=object)


def reason(message: str) -> str:
    """MLflow's message without the request that it repeats before or after the reason, cut to a readable length."""
    message = message.rpartition("\nError: ")[2].partition("\nInput: ")[0].strip()
    return message if len(message) <= LONGEST_REASON else f"{message[:LONGEST_REASON]} ..."
