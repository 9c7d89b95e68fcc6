"""MLflow's traces of served requests: a sample of them, without their texts unless the server is told to keep these.

SERVING_TRACE: the share of the requests that is traced, 0 to 1; 0, or nothing: none.
SERVING_TRACE_EXPERIMENT: the name of the experiment that gets them; it is made if it is missing.
SERVING_TRACE_TEXTS: 1 keeps questions, contexts, texts and answers too.

Traces are written by a thread of its own (`aside`), and not by MLflow's threads: while a store is away, a process that ends
would wait for those until each of its traces has failed.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .aside import Aside
from .observed import Seen, outcome

TRACE, EXPERIMENT, TEXTS = "SERVING_TRACE", "SERVING_TRACE_EXPERIMENT", "SERVING_TRACE_TEXTS"

DEFAULT = "served"
"""The experiment where SERVING_TRACE_EXPERIMENT does not say."""


class Tracing:
    """Chooses requests and writes their traces. share: of the requests, above 0. texts: whether texts are kept."""

    def __init__(self, share: float, experiment: str = DEFAULT, texts: bool = False):
        self._share, self._name, self._texts = share, experiment, texts
        self._experiment: str | None = None
        # Before MLflow's tracing is set up, which reads it then.
        os.environ.setdefault("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
        self._aside = Aside("Traces")

    def chooses(self, seen: Seen, asked: bytes) -> bool:
        """Whether a request is traced. asked: its header X-Trace, which counts from the holder of a key."""
        return bool(seen.key and asked == b"1") or random.random() < self._share

    def put(self, seen: Seen, seconds: float) -> None:
        """Have the trace of an answered request written. seconds: how long it took."""
        ended = time.time_ns()
        # Without its texts, a trace that waits takes no memory.
        inputs: Any = {"rows": seen.rows}
        outputs: Any = Counter(map(outcome, seen.answers))
        if self._texts and seen.answers:
            inputs, outputs = seen.records, seen.answers
        about: dict[str, Any] = {"request_id": seen.id, "version": seen.version, "status": seen.status}
        about |= {"rows": seen.rows} | {
            name: v for name in ("tokens", "key", "model") if (v := getattr(seen, name))
        }
        self._aside.put(lambda: self._write(about, inputs, outputs, ended - int(seconds * 1e9), ended))

    def finish(self, seconds: float) -> None:
        """Wait until the traces are written, but not for longer than that."""
        self._aside.finish(seconds)

    def _write(self, about: dict[str, Any], inputs: Any, outputs: Any, began: int, ended: int) -> None:
        import mlflow

        if self._experiment is None:
            # `mlflow.set_experiment` would set it for the whole process, and for those that it starts.
            client = mlflow.MlflowClient()
            found = client.get_experiment_by_name(self._name)
            self._experiment = found.experiment_id if found else client.create_experiment(self._name)
        span = mlflow.start_span_no_context(
            "invocations",
            span_type="CHAIN",
            inputs=inputs,
            attributes=about,
            tags={name: about[name] for name in ("version", "request_id")},
            experiment_id=self._experiment,
            start_time_ns=began,
        )
        span.end(outputs=outputs, status="OK" if about["status"] < 400 else "ERROR", end_time_ns=ended)


def tracing(environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """What the environment asks for; None: no traces. UserError names a setting that is wrong."""
    given = environment.get(TRACE) or "0"
    try:
        share = float(given)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(f"{TRACE} is {given!r}; it must be a share of the requests, 0 to 1, such as 0.01.")
    texts = environment.get(TEXTS) or "0"
    if texts not in ("0", "1"):
        raise UserError(f"{TEXTS} is {texts!r}; write 1 to keep texts, or 0.")
    if not share:
        return None
    return Tracing(share, environment.get(EXPERIMENT) or DEFAULT, texts == "1")
