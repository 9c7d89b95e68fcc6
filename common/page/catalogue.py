"""The models that can be asked: those that the registry lists, loaded at their first question; a few stay loaded."""

import re
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from ..errors import UserError, first_line
from ..paths import command
from ..serving import stored_code
from ..tasks.table import DEFAULT_TASK, TASKS

TASK = TASKS[DEFAULT_TASK]

LISTED = 6
"""How many versions are listed if none are named, those with an alias first."""

KEPT = 6
"""How many models stay loaded (about 100 MB each with the packaged base), and how many may answer one question."""

PATIENCE = 120
"""Seconds that a question waits for earlier ones."""

_MODEL = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_LOGGED = re.compile(r"models:/(?P<id>m-[0-9a-f]+)")
_RUN = re.compile(r"runs:/(?P<id>[0-9a-f]+)/.+")
_SHOWN = ("answer", "score", "start", "end")
_WARM_UP = {"question": "What is it?", "context": "It is a text."}


@dataclass(frozen=True)
class Entry:
    """A model that can be asked."""

    uri: str
    """The URI that MLflow loads; a version by its number, so that it stays the same model when an alias moves."""
    title: str
    aliases: tuple[str, ...]
    facts: Mapping[str, str]
    """What the store holds about it: tags of a version, tags and metrics of a run."""

    @property
    def slug(self) -> str:
        """The URI as the id of an element of a page."""
        return re.sub(r"\W+", "-", self.uri)


@dataclass(frozen=True)
class Reply:
    """What a model answered: `answers` best first, each with `answer`, `score`, `start`, `end`; seconds without loading."""

    answers: list[dict[str, Any]]
    seconds: float
    loading_seconds: float
    """0.0 if it was already loaded."""


class Busy(Exception):
    """Earlier questions took too long."""


class Unanswered(Exception):
    """A model could not be loaded, or refused; the message is for the reader."""


def entries(uris: Sequence[str] = ()) -> list[Entry]:
    """The models of these URIs (models:/NAME@ALIAS, models:/NAME/VERSION, models:/ID, runs:/ID/NAME), each once.

    Without URIs: the registered model's champion, its other versions with an alias, then the newest, LISTED in all. UserError
    if there are none, if one does not exist, or if it is no question-answering model.
    """
    client = mlflow.MlflowClient()
    try:
        found = [_entry(client, uri) for uri in uris] if uris else _newest(client)
    except MlflowException as error:
        raise UserError(f"The models cannot be listed: {_reason(error)}") from None
    for entry in found:
        task = entry.facts.get("task", TASK.name)
        if task != TASK.name:
            raise UserError(f"{entry.uri} is a model for {task}; the page asks models for {TASK.name}.")
    return list({entry.uri: entry for entry in found}.values())


def _newest(client: mlflow.MlflowClient) -> list[Entry]:
    versions = client.search_model_versions(f"name = '{TASK.registered}'")
    if not versions:
        raise UserError(
            f"No model is registered as {TASK.registered}: train one and run {command('register_best.py')} (make demo does "
            "both), or name a run's model with --models runs:/RUN_ID/model."
        )
    aliases = _aliases(client, TASK.registered)

    def order(version: Any) -> tuple[bool, bool, int]:
        held = aliases.get(str(version.version), [])
        return "champion" not in held, not held, -int(version.version)

    return [_version(version, aliases) for version in sorted(versions, key=order)[:LISTED]]


def _aliases(client: mlflow.MlflowClient, name: str) -> dict[str, list[str]]:
    held: dict[str, list[str]] = {}
    for alias, version in sorted(client.get_registered_model(name).aliases.items()):
        held.setdefault(str(version), []).append(alias)
    return held


def _version(version: Any, aliases: Mapping[str, list[str]]) -> Entry:
    number = str(version.version)
    return Entry(
        uri=f"models:/{version.name}/{number}",
        title=f"Version {number}" if version.name == TASK.registered else f"{version.name} {number}",
        aliases=tuple(aliases.get(number, ())),
        facts=dict(version.tags),
    )


def _entry(client: mlflow.MlflowClient, uri: str) -> Entry:
    try:
        if match := _LOGGED.fullmatch(uri):
            model = client.get_logged_model(match["id"])
            facts = _facts(client, model.source_run_id) if model.source_run_id else {}
            return Entry(uri, f"Model {match['id'][2:10]}", (), facts)
        if match := _MODEL.fullmatch(uri):
            name, alias = match["name"], match["alias"]
            found = (
                client.get_model_version_by_alias(name, alias)
                if alias
                else client.get_model_version(name, match["version"])
            )
            return _version(found, _aliases(client, name))
        if match := _RUN.fullmatch(uri):
            return Entry(uri, f"Run {match['id'][:8]}", (), _facts(client, match["id"]))
    except MlflowException as error:
        raise UserError(f"{uri} is not in the store {mlflow.get_tracking_uri()}: {_reason(error)}") from None
    raise UserError(
        f"{uri!r} names no model: write models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/model."
    )


def _facts(client: mlflow.MlflowClient, run_id: str) -> dict[str, str]:
    data = client.get_run(run_id).data
    return data.tags | {
        name: f"{value:g}" if value % 1 else f"{value:.0f}" for name, value in data.metrics.items()
    }


class Catalogue:
    """Answers of models by their entries; at most KEPT are loaded; the one that was asked longest ago is dropped first.

    One question is answered at a time: models that share the processor would each seem slow.
    """

    def __init__(
        self,
        uris: Sequence[str] = (),
        load: Callable[[str], Any] = stored_code.load,
        patience: float = PATIENCE,
    ):
        self.uris, self._load, self._patience = tuple(uris), load, patience
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._turn = threading.Lock()

    def entries(self) -> list[Entry]:
        """The models that can be asked, read again each time: aliases may have moved and versions been added."""
        return entries(self.uris)

    def ask(
        self, entry: Entry, question: str, context: str, top_k: int, max_error: float | None = None
    ) -> Reply:
        """The `top_k` best answers, as `mlflow models serve` gives them; raises Unanswered, or Busy.

        max_error: the share of wrong answers that is allowed, below whose threshold a model abstains; None: it answers
        everything.
        """
        if not self._turn.acquire(timeout=self._patience):
            raise Busy
        try:
            loading = self._ready(entry.uri)
            model = self._loaded[entry.uri]
            started = time.perf_counter()
            row = _predict(model, {"question": question, "context": context}, top_k, max_error)
            seconds = time.perf_counter() - started
            answers = [
                {name: answer[name] for name in (*_SHOWN, "abstained") if name in answer}
                for answer in (row, *row.get("alternatives", ()))
            ]
            return Reply(answers, seconds, loading)
        except Exception as error:
            # The card of a model shows whatever its stored code raises, next to the others' answers.
            if not isinstance(error, MlflowException | UserError):
                traceback.print_exc(file=sys.stderr)
            raise Unanswered(_reason(error)) from None
        finally:
            self._turn.release()

    def _ready(self, uri: str) -> float:
        if uri in self._loaded:
            self._loaded.move_to_end(uri)
            return 0.0
        while len(self._loaded) >= KEPT:
            self._loaded.popitem(last=False)
        started = time.perf_counter()
        model = self._load(uri)
        # A first answer takes several times as long as later ones.
        _predict(model, _WARM_UP, 1)
        self._loaded[uri] = model
        return time.perf_counter() - started


def _predict(
    model: Any, record: Mapping[str, str], top_k: int, max_error: float | None = None
) -> dict[str, Any]:
    params: dict[str, float] = {"top_k": top_k}
    if max_error is not None:
        # MLflow drops a parameter that a model does not know, and the answer would be one without a promise.
        if "max_error" not in [spec.name for spec in model.metadata.get_params_schema() or ()]:
            raise UserError(
                "It was stored by an earlier version, which promises no error: allow any error, or train again."
            )
        params["max_error"] = max_error
    return model.predict(pd.DataFrame([record]), params=params).iloc[0].to_dict()


def _reason(error: Exception) -> str:
    if isinstance(error, MlflowException):
        message = error.message
    else:
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return first_line(message, type(error).__name__)[:300]
