"""What MLflow's scoring server leaves open before a request reaches a model, closed from within the model.

Left alone, it answers 500 to JSON that is nested too deeply, to a number of 5,000 digits and to a request without a content
type; and it sends a traceback with every CSV or Parquet body that it cannot read, or the whole request back.
"""

import functools
import logging
import sys

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

SERVER = "mlflow.pyfunc.scoring_server"

LARGEST_BODY = 16 * 2**20
"""Bytes of a request: 413 beyond, before it is parsed."""

LONGEST_REASON = 1000

_log = logging.getLogger(__name__)


def guard_server() -> None:
    """Put `guarded` around the server's handling of requests, where this process is one."""
    server = sys.modules.get(SERVER)
    if server is not None and not hasattr(server.invocations, "__wrapped__"):
        server.invocations = guarded(server.invocations, server.InvocationsResponse)


def guarded(invocations, response):
    """`invocations` (data, content type, ...) that refuses what it cannot read, with a plain reason and no traceback.

    response: makes what `invocations` returns, of text, status and type.
    """

    @functools.wraps(invocations)
    def answer(data, content_type, *args, **kwargs):
        if not content_type:
            return response("Send a Content-Type: application/json.", 415, "text/plain")
        if len(data) > LARGEST_BODY:
            return response(
                f"The request has {len(data)} bytes; at most {LARGEST_BODY} are read.", 413, "text/plain"
            )
        try:
            return invocations(data, content_type, *args, **kwargs)
        except MlflowException as error:
            if trace := error.json_kwargs.pop("stack_trace", None):
                _log.warning("A request was refused: %s\n%s", reason(error.message), trace)
            error.message = reason(error.message)
            raise
        except RecursionError:
            raise MlflowException("The JSON is nested too deeply.", BAD_REQUEST) from None
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            # All that is raised here comes from reading the request: what a model raises is an MlflowException by now.
            _log.warning("A request could not be read", exc_info=error)
            raise MlflowException(f"The request cannot be read: {reason(str(error))}", BAD_REQUEST) from None

    return answer


def reason(message: str) -> str:
    """MLflow's message without the request that it repeats before or behind the reason, and not longer than one reads."""
    message = message.rpartition("\nError: ")[2].partition("\nInput: ")[0].strip()
    return message if len(message) <= LONGEST_REASON else f"{message[:LONGEST_REASON]} ..."
