"""The model that answers: the one that the server was started with, or the one that an alias leads to now.

SERVING_FOLLOW=models:/NAME@ALIAS makes a server follow an alias: it looks every few seconds which version it names, opens
that version's files once they are what was recorded (`stored_code`), lets it answer once, and then hands it all new
requests. Those that have begun end with the model that they began with, which is freed afterwards. A version that does
not open is named in the log, and the model before it goes on answering. SERVING_FOLLOW_SECONDS: the seconds between two looks;
`look_now` does not wait for them.
"""

import copy
import ctypes
import gc
import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import yaml
from mlflow.models import Model

from ..errors import UserError, first_line
from . import stored_code

if TYPE_CHECKING:
    from .observed import Observed

FOLLOW, SECONDS = "SERVING_FOLLOW", "SERVING_FOLLOW_SECONDS"

EVERY = 5.0
"""Seconds between two looks at the alias, where SERVING_FOLLOW_SECONDS does not say."""

PATIENCE = 20.0
"""Seconds until a server is ready whose store does not answer: it has a model, and follows once the store is back."""

WARM_UP = "Is it ready? It is."
"""What a model is asked first."""

RETRY = 60.0
"""Seconds until a version that did not open is tried again; it is reported once."""

_ALIAS = re.compile(r"models:/([^/@]+)@([^/@]+)")

_log = logging.getLogger(__name__)


class Answering:
    """The model that new requests get, and its version.

    folder: the stored model that the server was started with. alias: what it follows, models:/NAME@ALIAS; None: nothing.
    """

    def __init__(self, folder: Path, alias: str | None = None):
        about = Model.load(str(folder))
        self.columns: Sequence[str] = about.get_input_schema().required_input_names()
        self._model_id = about.model_id
        name, version = registered(folder)
        self._now: tuple[Any, str] = (None, version or about.model_id or "unknown")
        self._alias, self._first = alias, threading.Lock()
        self._observed: Observed | None = None
        self._failed: str | None = None
        self._retry, self._away = 0.0, False
        self._every, self._asked = seconds_of(SECONDS, EVERY, 0.1, 86_400), threading.Event()
        self.settled = alias is None
        """Whether the alias was asked once, if there is one, or did not answer for PATIENCE."""
        if alias is not None and not _ALIAS.fullmatch(alias):
            raise UserError(f"{FOLLOW} is {alias!r}; write models:/NAME@ALIAS.")
        self.name = name if alias is None else _ALIAS.fullmatch(alias)[1]  # type: ignore[index]
        """Of the registered model; empty if it is none."""

    @property
    def version(self) -> str:
        """Of the model that a request gets now."""
        return self._now[1]

    @property
    def model(self) -> Any:
        """What a request gets now; None until the first one."""
        return self._now[0]

    def of_request(self, given: Any) -> tuple[Any, str]:
        """(model, its version) for a request. given: the model that the server was started with."""
        if self._alias is None:
            self._now = (given, self._now[1])
            return self._now
        if self._now[0] is None:
            with self._first:
                if self._now[0] is None:
                    # The application keeps what was given for ever: without its contents, which would never be freed.
                    self._now = (copy.copy(given), self._now[1])
                    vars(given).clear()
        return self._now

    def begin(self, observed: "Observed") -> None:
        """The model has answered once: count it, and follow the alias from now on."""
        self._observed = observed
        observed.answers(self.version)
        if self._alias is not None:
            threading.Thread(target=self._follow, name="follow", daemon=True).start()
            waited = threading.Timer(PATIENCE, self._settle)
            waited.daemon = True
            waited.start()

    @property
    def follows(self) -> bool:
        """Whether there is an alias to follow."""
        return self._alias is not None

    def look_now(self) -> None:
        """Have the alias looked at without waiting; a version that did not open is tried, and reported, again."""
        self._asked.set()

    def _follow(self) -> None:
        while True:
            self.look()
            self._settle()
            if self._asked.wait(self._every):
                self._asked.clear()
                self._failed = None

    def _settle(self) -> None:
        self.settled = True

    def look(self, opened: Callable[[str], Any] | None = None) -> None:
        """Ask the alias which version it names, and switch to that. opened: opens models:/NAME/VERSION."""
        assert self._alias is not None
        version = ""
        try:
            (name, alias), client = _ALIAS.fullmatch(self._alias).groups(), mlflow.MlflowClient()  # type: ignore[union-attr]
            found = client.get_model_version_by_alias(name, alias)
            version, model_id = str(found.version), found.source.removeprefix("models:/")
            if model_id == self._model_id:
                self._failed = None
                self._switch(self._now[0], version)
            elif self._failed != version or time.monotonic() > self._retry:
                model = (opened or open_version)(f"models:/{name}/{version}")
                self._model_id, self._failed = model_id, None
                self._switch(model, version)
        except Exception as error:
            # A store that is away says nothing about the version that did not open.
            if version:
                reported, self._failed, self._retry = (
                    self._failed == version,
                    version,
                    time.monotonic() + RETRY,
                )
            else:
                reported, self._away = self._away, True
            if not reported:
                _log.error("%s: %s; version %s goes on.", self._alias, first_line(error), self.version)
        else:
            self._away = False

    def _switch(self, model: Any, version: str) -> None:
        before, self._now = self._now[1], (model, version)
        if version == before:
            return
        _log.warning("%s: version %s answers from now on, in the place of %s.", self._alias, version, before)
        if self._observed is not None:
            self._observed.answers(version)
        give_back_memory()


def seconds_of(name: str, default: float, least: float, most: float) -> float:
    """An environment variable that holds a number of seconds, `least` to `most`; UserError names it otherwise."""
    given = os.environ.get(name) or str(default)
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise UserError(f"{name} is {given!r}; it must be a number of seconds, {least:g} to {most:g}.")
    return value


def open_version(uri: str, bases: stored_code.Bases | None = None) -> Any:
    """The model of a version, its files verified; it has answered once. UserError says why it does not. bases: those of models
    that are open."""
    config = os.environ.get("SERVING_MODEL_CONFIG")
    model = stored_code.load(uri, config=json.loads(config) if config else None, bases=bases)
    columns = model.metadata.get_input_schema().required_input_names()
    model.predict(pd.DataFrame([dict.fromkeys(columns, WARM_UP)]))
    return model


def registered(folder: Path) -> tuple[str, str]:
    """(name, version) of a stored model that was downloaded as a registered one; else empty texts."""
    try:
        noted = yaml.safe_load((folder / "registered_model_meta").read_text())
        return str(noted["model_name"]), str(noted["model_version"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return "", ""


def give_back_memory() -> None:
    """Free what nothing refers to any more, and return it to the system where the C library can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass
