"""Gaps in MLflow's scoring server that a request meets before it reaches a model; the model closes them.

By itself the server answers 500 to JSON that is nested too deeply, to a number of 5,000 digits and to a request without a
content type. It sends a traceback, or the whole request, back for every CSV or Parquet body that it cannot read. It holds a
body of any size in memory, cannot read CSV for this signature, and drops what it does not know (`requests`).
"""

import asyncio
import functools
import io
import logging
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.types import Schema

from .requests import check_columns, check_json, read_csv

SERVER = "mlflow.pyfunc.scoring_server"

PARQUET = "application/vnd.apache.parquet"

LARGEST_BODY = 16 * 2**20
"""Bytes of a request; larger ones get 413 before they are parsed."""

MOST_DISCARDED = 4 * LARGEST_BODY
"""Bytes of a body that is too large that are read and discarded, so that its sender can read the answer."""

PATIENCE = 60
"""Seconds in which a body must arrive that is too long, or does not state its length."""

LONGEST_REASON = 1000

AT_ONCE = 64
"""Requests that are read, computed and written at the same time; later ones wait for a place."""

Message = MutableMapping[str, Any]
"""A scope or an event of ASGI."""

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_log = logging.getLogger(__name__)


def guard_server() -> None:
    """Put `guarded` around the server's handling of requests, if this process is a server."""
    server: Any = sys.modules.get(SERVER)
    if server is not None and not hasattr(server.invocations, "__wrapped__"):
        server.invocations = guarded(server.invocations, server.InvocationsResponse)
        server._parse_json_data = checked(server._parse_json_data)
        server.parse_csv_input = functools.wraps(server.parse_csv_input)(parse_csv)
        bound_bodies()


def guarded(invocations: Callable[..., Any], response: Callable[..., Any]) -> Callable[..., Any]:
    """`invocations` (data, content type, model, ...) that refuses what it cannot read, with a plain reason and no traceback.

    response: creates the return value of `invocations` from text, status and type.
    """

    @functools.wraps(invocations)
    def answer(data: bytes, content_type: str | None, model: Any, *args: Any, **kwargs: Any) -> Any:
        if not content_type:
            return response("Send a Content-Type: application/json.", 415, "text/plain")
        if len(data) > LARGEST_BODY:
            return response(_too_large(len(data)), 413, "text/plain")
        try:
            kind = _plain_type(content_type)
            if kind.partition(";")[0] == PARQUET:
                check_parquet(data, model.metadata.get_input_schema().input_names())
            return invocations(_decodable(data, content_type), kind, model, *args, **kwargs)
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
        check_json(data, metadata.get_input_schema().input_names(), parameters)
        return parse(data, metadata, *args, **kwargs)

    return parsed


def check_parquet(body: bytes, columns: Sequence[str]) -> None:
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
    check_columns("The Parquet", names, columns)


def parse_csv(csv_input: str | Path | TextIO, schema: Schema | None = None) -> pd.DataFrame:
    """Replaces MLflow's `parse_csv_input`: every cell is text. csv_input: a path or a stream."""
    text = Path(csv_input).read_text("utf-8") if isinstance(csv_input, str | Path) else csv_input.read()
    # `mlflow models predict` gives no schema.
    columns = schema.input_names() if schema is not None else None
    return pd.DataFrame(read_csv(text, columns), dtype=object)


def bound_bodies() -> None:
    """Make the server's application, which is created after its model is loaded, refuse bodies over LARGEST_BODY unread."""
    import fastapi

    class Bounded(fastapi.FastAPI):
        async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                # The default, a few more than there are cores, would leave requests unread that could be computed together.
                asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(AT_ONCE, "request"))
            if scope["type"] == "http":
                try:
                    size, receive = await asyncio.wait_for(bounded(scope, receive), PATIENCE)
                except TimeoutError:
                    await plain(send, 408, f"The body did not arrive within {PATIENCE:g} seconds.")
                    return
                if size > LARGEST_BODY:
                    await plain(send, 413, _too_large(size))
                    return
            await super().__call__(scope, receive, send)

    fastapi.FastAPI = Bounded


async def bounded(scope: Message, receive: Receive) -> tuple[int, Receive]:
    """(size of a request's body, the function from which its application receives it); a body over LARGEST_BODY is not kept."""
    headers = dict(scope["headers"])
    announced = headers.get(b"content-length", b"").decode("latin-1")
    # The announced length does not count for a body in chunks.
    size = int(announced) if announced.isdecimal() and b"transfer-encoding" not in headers else None
    if size is not None and size <= LARGEST_BODY:
        return size, receive
    kept: list[Message] = []
    count, more = 0, size is None or size <= MOST_DISCARDED
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        count += len(message.get("body", b""))
        more = message.get("more_body", False) and count <= MOST_DISCARDED
        if size is None and count <= LARGEST_BODY:
            kept.append(message)
    waiting = iter(kept)

    async def again() -> Message:
        return next(waiting, None) or await receive()

    return max(count, size or 0), again


async def plain(send: Send, status: int, text: str) -> None:
    """Answer a request with a text and close its connection."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def _too_large(size: int) -> str:
    return f"The request has {size} bytes; at most {LARGEST_BODY} are read."


def reason(message: str) -> str:
    """MLflow's message without the request that it repeats before or after the reason, cut to a readable length."""
    message = message.rpartition("\nError: ")[2].partition("\nInput: ")[0].strip()
    return message if len(message) <= LONGEST_REASON else f"{message[:LONGEST_REASON]} ..."
