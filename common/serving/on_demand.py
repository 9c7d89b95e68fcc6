"""Further registered models that a server answers with: opened when they are first asked for, freed when others need the room.

SERVING_MODELS="shop-qa@champion team-*@champion" lists what a request may name in its header X-Model, beside the model that
the server was started with, which answers where the header is missing. SERVING_MODELS_MIB bounds the weights in memory of
all models together: the one that was not asked for longest goes first. Requests that have begun keep the model that they
have. Adapters of one base share its weights (`shared_bases`).

A model is opened once for all requests that wait for it, in a thread that holds up no other model's requests. As with
SERVING_FOLLOW its files are verified, it answers once first, and its alias is followed from then on.
"""

import asyncio
import contextlib
import fnmatch
import functools
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from ..errors import UserError, first_line
from . import stored_code
from .following import EVERY, RETRY, SECONDS, give_back_memory, open_version, seconds_of
from .held_models import Held, Opened, Version, weights_of
from .shared_bases import MODELS

if TYPE_CHECKING:
    from .following import Answering
    from .observed import Observed, Seen

BOUND = "SERVING_MODELS_MIB"

PATIENCE = 50.0
"""Seconds that a request waits for a model that is being opened; MLflow's server gives up on an answer after 60."""

THREADS = 4
"""Models that are fetched, and names that are looked up in the store, at the same time."""

SHOWN = 50
"""Names in an answer at most."""

MIB = 2**20

GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's codes for a model, and for an alias, that does not exist."""

_PATTERN = re.compile(r"[*?[]")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """Why a request does not get the model that it names. seconds: after which it may get it; 0: not by waiting."""

    status: int
    reason: str
    seconds: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.seconds)} if self.seconds else {}


class OnDemand:
    """What a request that names a model gets.

    allowed: (name or pattern, alias) of what may be asked for. most: bytes of weights in memory at most. answering: the model
    that the server was started with. opened: opens models:/NAME/VERSION; default: `open_version`.
    """

    def __init__(
        self,
        allowed: Sequence[tuple[str, str]],
        most: int | None,
        answering: "Answering",
        observed: "Observed",
        opened: Callable[[str], Any] | None = None,
    ):
        self._allowed, self._answering = allowed, answering
        self._open = opened or functools.partial(open_version, bases=stored_code.Bases())
        self.held = Held(most, self._beside)
        self._started: tuple[Callable[[], Any], Mapping[int, int]] = (lambda: None, {})
        self._lock = threading.Lock()
        """Held while the models in memory change, or those that are being opened, or that are to be freed."""
        self._opening: dict[str, Future[Opened | Refused]] = {}
        self._failed: dict[str, tuple[Version, Refused, float]] = {}
        self._leaving: list[weakref.ref] = []
        self._names: tuple[list[str], float] = ([], float("-inf"))
        self._asking = threading.Lock()
        self._away = False
        """Whether the store did not answer when it was last asked, which is reported once."""
        self._threads = ThreadPoolExecutor(THREADS, "open")
        self._watching = False
        self._every, self._asked = seconds_of(SECONDS, EVERY, 0.1, 86_400), threading.Event()
        self._counted = _Counted(observed)

    async def denied(self, seen: "Seen", path: str, headers: Mapping[bytes, bytes]) -> Refused | None:
        """Give a request the model that it names, if it names one; or why it gets none."""
        given = headers.get(b"x-model")
        if given is None or path != "/invocations":
            return None
        name = given.decode("utf-8", "replace").strip()
        with self._lock:
            found: Opened | Refused | None = self.held.asked(name)
            if found is None:
                known = self._alias(name) is not None
                if known or name == self._answering.name:
                    seen.model = name
                if not known and seen.model:
                    return None
                opening = self._begin(name) if known else None
        if found is None:
            if opening is None:
                return await asyncio.to_thread(self._unknown, name)
            try:
                # Others may wait for it too, and it goes on without them.
                found = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(opening)), PATIENCE)
            except TimeoutError:
                found = Refused(503, f"The model {name[:100]!r} is being opened: ask again.", 5)
        if isinstance(found, Refused):
            if found.status == 404:
                seen.model = ""
            return found
        seen.chosen, seen.model, seen.version = found.model, name, found.named.version
        return None

    @property
    def any(self) -> bool:
        """Whether a request may ask for further models."""
        return bool(self._allowed)

    def look_now(self) -> None:
        """Have all aliases looked at without waiting; a version that did not open is tried again when it is asked for."""
        with self._lock:
            self._failed.clear()
        self._names = ([], float("-inf"))
        self._asked.set()

    def _beside(self) -> Mapping[int, int]:
        """The weights of the model that the server was started with, or follows."""
        model = self._answering.model
        if model is None:
            return {}
        if self._started[0]() is not model:
            self._started = (weakref.ref(model), weights_of(model))
        return self._started[1]

    def _alias(self, name: str) -> str | None:
        """The alias by which a name may be asked for."""
        return next((alias for each, alias in self._allowed if fnmatch.fnmatchcase(name, each)), None)

    def _begin(self, name: str) -> "Future[Opened | Refused]":
        """The opening of a model that is not in memory, or not in this version. Whoever calls holds the lock."""
        if name not in self._opening:
            self._opening[name] = self._threads.submit(self._opened, name)
        return self._opening[name]

    def _opened(self, name: str) -> Opened | Refused:
        begun = time.perf_counter()
        try:
            wanted = self._version(name)
            if isinstance(wanted, Refused):
                return wanted
            failed, refused, until = self._failed.get(name, (None, None, 0.0))
            if refused is not None and failed == wanted and time.monotonic() < until:
                return refused
            try:
                model = self._open(f"models:/{name}/{wanted.version}")
                opened = Opened(model, wanted, weights_of(model))
            except Exception as error:
                _log.error("%s: version %s does not open: %s", name, wanted.version, first_line(error))
                reason = f"Version {wanted.version} of {name} does not open; the server's log says why."
                return self._did_not_open(name, wanted, Refused(503, reason, round(RETRY)))
            return self._kept(name, opened, begun)
        except Exception:
            # Whoever asked gets an answer in any case.
            _log.exception("%s was not opened", name)
            return Refused(503, f"{name} was not opened; the server's log says why.", round(EVERY))
        finally:
            with self._lock:
                self._opening.pop(name, None)

    def _kept(self, name: str, opened: Opened, begun: float) -> Opened | Refused:
        """Keep what was opened, and free what has to go for it."""
        with self._lock:
            gone, needed = self.held.put(name, opened), self.held.total([opened])
        self._watch()
        if gone is None:
            reason = (
                f"{name} needs {needed / MIB:.1f} MiB of weights in memory, the model that the server was started with "
                f"included; {BOUND} allows {(self.held.most or 0) / MIB:g}."
            )
            _log.error("%s", reason)
            with self._lock:
                self._leaving.append(weakref.ref(opened.model))
            return self._did_not_open(name, opened.named, Refused(507, reason))
        self._failed.pop(name, None)
        _log.warning("%s: version %s answers from now on.", name, opened.named.version)
        with counting():
            self._counted.opened(name, time.perf_counter() - begun, gone.keys() - {name})
        self._free(gone)
        return opened

    def _did_not_open(self, name: str, wanted: Version, refused: Refused) -> Refused:
        self._failed[name] = (wanted, refused, time.monotonic() + RETRY)
        with counting():
            self._counted.failed(name)
        return refused

    def _free(self, gone: dict[str, Opened]) -> None:
        """Give back the memory of models that are no longer held; of those that a request still has, later."""
        with self._lock:
            self._leaving += [weakref.ref(each.model) for each in gone.values()]
            with counting():
                self._counted.held(self.held.own(), self.held.total(), gone)
        if gone:
            gone.clear()
            give_back_memory()

    def _version(self, name: str) -> Version | Refused:
        """What the alias of a name is now; 404 for what may not be asked for, 503 if the store does not answer."""
        alias = self._alias(name)
        try:
            by_pattern = all(name != each for each, _ in self._allowed)
            if alias is None or (by_pattern and name not in self._known()):
                return self._unknown(name)
            found = mlflow.MlflowClient().get_model_version_by_alias(name, alias)
            self._away = False
            return Version(str(found.version), found.source.removeprefix("models:/"))
        except Exception as error:
            if isinstance(error, MlflowException) and error.error_code in GONE:
                return Refused(404, f"The models' store has no {name}@{alias}.")
            if not self._away:
                _log.error("%s: the store does not say its version: %s", name, first_line(error))
            self._away = True
            return Refused(
                503, f"The models' store does not answer, and {name} is not in memory.", round(EVERY)
            )

    def _unknown(self, name: str) -> Refused:
        try:
            known = self._known()
        except Exception as error:
            _log.error("The store does not say its models: %s", first_line(error))
            known = [each for each, _ in self._allowed]
        if not known:
            return Refused(404, "This server answers with one model: leave X-Model out.")
        listed = ", ".join(known[:SHOWN]) + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else "")
        reason = f"X-Model is {name[:100]!r}; this server answers with {listed}, and without X-Model."
        return Refused(404, reason)

    def _known(self) -> list[str]:
        """The names that may be asked for; for patterns the store is asked, at most every EVERY seconds."""
        exact = [each for each, _ in self._allowed if not _PATTERN.search(each)]
        if len(exact) == len(self._allowed):
            return exact
        with self._asking:
            names, asked = self._names
            if time.monotonic() - asked > EVERY:
                names, token, client = [], None, mlflow.MlflowClient()
                while token != "":
                    page = client.search_registered_models(max_results=1000, page_token=token)
                    names += [each.name for each in page if self._alias(each.name) in each.aliases]
                    token = page.token or ""
                self._names = (names, time.monotonic())
        return sorted({*exact, *names})

    def _watch(self) -> None:
        with self._lock:
            begun, self._watching = self._watching, True
        if not begun:
            threading.Thread(target=self._follow, name="follow further models", daemon=True).start()

    def _follow(self) -> None:
        while True:
            self._asked.wait(self._every)
            self._asked.clear()
            try:
                self.look()
            except Exception:
                _log.exception("Further models were not looked at")

    def look(self) -> None:
        """Follow the aliases of the models in memory, and give back the memory of those that no request has any more."""
        with self._lock:
            held = {name: opened.named for name, opened in self.held.models.items()}
        for name, named in held.items():
            wanted = self._version(name)
            if isinstance(wanted, Version) and wanted != named:
                with self._lock:
                    opening = self._begin(name)
                opening.result()
                del opening
            elif isinstance(wanted, Refused) and wanted.status == 404:
                _log.warning("%s is freed: its alias is gone.", name)
                with self._lock:
                    gone = self.held.models.pop(name, None)
                self._free({} if gone is None else {name: gone})
                del gone
            elif isinstance(wanted, Refused):
                # The store is away, and asking for each would last.
                break
        with self._lock:
            trimmed = self.held.trimmed()
        self._free(trimmed)
        if self._leaving:
            give_back_memory()
            with self._lock:
                self._leaving = [each for each in self._leaving if each() is not None]


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """Counters that cannot be written, on a full disk for example, hold nobody's answer."""
    try:
        yield
    except Exception:
        _log.exception("Further models were not counted")


class _Counted:
    """What /metrics says of further models."""

    def __init__(self, observed: "Observed"):
        def of(kind: str, name: str, text: str, labels: Sequence[str] = ("model",), **options: Any) -> Any:
            return observed.further(kind, f"suite_model_{name}", text, labels, **options)

        self._seconds = of("Summary", "load_seconds", "Opening a further model")
        self._failures = of("Counter", "load_failures", "Further models that did not open")
        self._evictions = of("Counter", "evictions", "Further models that were freed for others")
        gauge = {"multiprocess_mode": "livesum"}
        self._own = of("Gauge", "bytes", "Weights of a further model that no other uses", **gauge)
        self._all = of("Gauge", "bytes_of_all", "Weights of all models in memory", (), **gauge)

    def opened(self, name: str, seconds: float, evicted: set[str]) -> None:
        if self._seconds is not None:
            self._seconds.labels(name).observe(seconds)
            for other in evicted:
                self._evictions.labels(other).inc()

    def failed(self, name: str) -> None:
        if self._failures is not None:
            self._failures.labels(name).inc()

    def held(self, own: Mapping[str, int], every: int, gone: Mapping[str, Any]) -> None:
        """own: name → bytes that no other model uses; every: bytes of all."""
        if self._own is not None:
            for name in gone:
                self._own.labels(name).set(0)
            for name, size in own.items():
                self._own.labels(name).set(size)
            self._all.set(every)


def from_environment(answering: "Answering", observed: "Observed") -> OnDemand:
    """The further models that SERVING_MODELS lists, by default none."""
    allowed = []
    for each in re.split(r"[\s,]+", os.environ.get(MODELS, "")):
        if each:
            match = re.fullmatch(r"([^/:@]+)@([^/:@*?]+)", each)
            if match is None:
                raise UserError(
                    f"{MODELS} has {each!r}; write NAME@ALIAS, where * in NAME stands for any text."
                )
            allowed.append((match[1], match[2]))
    return OnDemand(allowed, _bound(os.environ.get(BOUND)), answering, observed)


def _bound(text: str | None) -> int | None:
    if not text:
        return None
    try:
        mib = float(text)
    except ValueError:
        mib = 0.0
    if not 0 < mib < float("inf"):
        raise UserError(f"{BOUND} is {text!r}; it must be a number of MiB above 0.")
    return int(mib * MIB)
