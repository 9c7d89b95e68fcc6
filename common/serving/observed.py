"""What a server counts for Prometheus, and what is known of the request at hand. No counter holds anything of a text.

Without `prometheus_client` nothing is counted. With several workers each process counts for itself, unless
PROMETHEUS_MULTIPROC_DIR names a folder in which they count together (prometheus_client's multiprocess mode).
"""

import contextvars
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .server_process import SERVER, in_server

SHARED = "PROMETHEUS_MULTIPROC_DIR"

PATHS = ("/invocations", "/ping", "/health", "/version", "/ready", "/metrics", "/reload")

KINDS = {
    400: "bad_request", 401: "no_key", 404: "bad_request", 405: "bad_request", 408: "slow_client", 413: "too_large",
    415: "content_type", 429: "too_many", 503: "not_ready", 504: "timeout",
}  # fmt: skip
"""Status → kind of an error; others are `server`."""

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper ends of the histograms' parts."""


@dataclass
class Seen:
    """One request: what its answer's headers and the access log say of it."""

    id: str
    version: str = ""
    rows: int = 0
    key: str = ""
    """The name of the API key."""
    status: int = 0
    traced: bool = False
    kept: bool = False
    """Whether the rows are wanted after the answer, for a trace or an observation: then they stay in the memory until then."""
    tokens: int = 0
    """That were computed for a traced request, without padding; 0 where they are not known."""
    records: Sequence[Mapping[str, Any]] = ()
    answers: Sequence[Mapping[str, Any]] = ()


class Observed:
    """Counters of one process; each method is called by whoever knows the figures."""

    def __init__(self, prometheus: ModuleType | None):
        self.current: contextvars.ContextVar[Seen | None] = contextvars.ContextVar("request", default=None)
        self._prometheus, self._version = prometheus, ""
        if prometheus is None:
            return
        self._registry = prometheus.CollectorRegistry()
        own = {"registry": self._registry}
        prometheus.ProcessCollector(**own)
        self._requests = prometheus.Counter("suite_requests", "Requests", ["path", "status"], **own)
        self._errors = prometheus.Counter("suite_errors", "Requests without an answer", ["kind"], **own)
        self._seconds = prometheus.Histogram(
            "suite_request_seconds", "From a request of /invocations to its answer", buckets=SECONDS, **own
        )
        self._rows = prometheus.Counter("suite_rows", "Rows that were answered", ["outcome"], **own)
        self._pass_rows = prometheus.Histogram(
            "suite_pass_rows", "Rows that a model computed at once", buckets=COUNTS, **own
        )
        self._pass_requests = prometheus.Histogram(
            "suite_pass_requests", "Requests in one pass", buckets=COUNTS, **own
        )
        self._tokens = prometheus.Counter("suite_tokens", "Tokens that were computed", ["kind"], **own)
        self._model = prometheus.Gauge(
            "suite_model", "1: the model that answers", ["version"], multiprocess_mode="mostrecent", **own
        )

    def answers(self, version: str) -> None:
        """A version answers from now on."""
        if self._prometheus is not None:
            if self._version:
                self._model.labels(self._version).set(0)
            self._model.labels(version).set(1)
        self._version = version

    def received(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The rows of the request at hand, if there is one."""
        seen = self.current.get()
        if seen is not None and seen.kept:
            seen.records = records

    def answered(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows of an answer: of the request at hand, if there is one."""
        seen = self.current.get()
        if seen is None:
            return
        seen.rows = len(rows)
        if seen.kept:
            seen.answers = rows
        if self._prometheus is not None:
            for row in rows:
                self._rows.labels(outcome(row)).inc()

    def computed(self, requests: int, rows: int, tokens: int, padded: int) -> None:
        """A pass. tokens: without those that the pass was padded with; padded: with them."""
        if self._prometheus is not None:
            self._pass_requests.observe(requests)
            self._pass_rows.observe(rows)
            self._tokens.labels("text").inc(tokens)
            self._tokens.labels("padding").inc(padded - tokens)

    def finished(self, path: str, status: int, seconds: float) -> None:
        """A request and the status of its answer."""
        if self._prometheus is None:
            return
        self._requests.labels(path if path in PATHS else "other", str(status)).inc()
        if status >= 400:
            self._errors.labels(KINDS.get(status, "server")).inc()
        if path == "/invocations":
            self._seconds.observe(seconds)

    def text(self) -> tuple[bytes, str] | None:
        """(the counters as Prometheus reads them, their content type); None where they cannot be counted."""
        if self._prometheus is None:
            return None
        registry = self._registry
        if os.environ.get(SHARED):
            registry = self._prometheus.CollectorRegistry()
            importlib.import_module("prometheus_client.multiprocess").MultiProcessCollector(registry)
        return self._prometheus.generate_latest(registry), self._prometheus.CONTENT_TYPE_LATEST


def outcome(row: Mapping[str, Any]) -> str:
    """What became of a row: `answered`, `no_answer`, or `abstained` (held back by `max_error`)."""
    if row.get("abstained"):
        return "abstained"
    return "no_answer" if row.get("answer") == "" else "answered"


INTERFACE = "suite_observed_2"
"""Where the server's module holds its counters; the number changes with the methods of `Observed`."""


def observed() -> Observed:
    """The counters of this process; every stored model that it opens brings its own copy of this code, and shares them."""
    place: Any = sys.modules.get(SERVER, sys.modules[__name__])
    if not hasattr(place, INTERFACE):
        setattr(place, INTERFACE, Observed(_prometheus() if in_server() else None))
    return getattr(place, INTERFACE)


def _prometheus() -> ModuleType | None:
    if shared := os.environ.get(SHARED):
        # Before prometheus_client is imported, which then counts in files there.
        os.makedirs(shared, exist_ok=True)
    try:
        return importlib.import_module("prometheus_client")
    except ImportError:
        return None
