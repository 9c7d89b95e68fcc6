"""Whether this process is a server, which bounds what one request may hold and shares its cores among requests."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

SERVER = "mlflow.pyfunc.scoring_server"
"""The module of MLflow's server."""


def workers(argv: Sequence[str]) -> int | None:
    """How many processes `mlflow models serve` was told to start, None for another command line than its server's.

    A worker process has the command line of the one that started it.
    """
    if not argv or Path(argv[0]).name != "uvicorn":
        return None
    given = [value for name, value in zip(argv, argv[1:], strict=False) if name == "--workers"]
    return int(given[-1]) if given else int(os.environ.get("WEB_CONCURRENCY", 1))


def in_server() -> bool:
    """Whether requests reach this process over HTTP: it is MLflow's scoring server, however it was started.

    `mlflow models predict`, `mlflow.pyfunc.load_model`, `mlflow.models.evaluate` and Spark's functions run in other processes.
    """
    return workers(sys.argv) is not None or "mlflow.pyfunc.scoring_server.app" in sys.modules
