"""A training's MLflow run, logged through a journal in its output folder: no fault of the store stops the training, and what
the store does not have yet is sent later, once."""

import json
import math
import shlex
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .. import stopping
from ..errors import UserError, first_line
from ..files import write_json
from ..paths import command
from ..serving import model_logging
from ..tasks import naming
from ..tasks.table import DEFAULT_TASK, task_of
from ..tracking import provenance, runs, store, system_metrics
from ..tracking.journal import Entry, Journal, Sender
from .run_folder import STATE, read_state, remove

SPOOL = "spool"
"""Folder of the entries' files, by the number of the entry. They stay until the store has the whole run: it may be deleted, and
everything is sent again then."""

PATIENCE = 30.0
"""Seconds for which a training that has ended tries a store that does not answer."""

HURRY = 4.0
"""Seconds for which a stopped training waits for the store, whether or not it answers."""

LAST_WORD = 2.5
"""The same, in seconds, if the process ends in the middle of a computation."""


class Recorder:
    """The `TrainingLog` of a run. Each call returns once its entry is on the disk; a background thread sends it to the store.

    A point of a curve that the journal holds is not recorded again, so that a run that goes on from a checkpoint has each
    point once.
    """

    def __init__(self, folder: Path, run_id: str):
        self.id, self.folder, self.uri = run_id, folder, f"runs:/{run_id}"
        self.journal = Journal(folder)
        entries = self.journal.entries
        self._points = {(name, e["step"]) for e in entries if e["do"] == "metrics" for name in e["values"]}
        sampled = [step for name, step in self._points if name.startswith(system_metrics.PREFIX)]
        self._next_sample = max(sampled, default=-1) + 1
        self._has_model = any(e["do"] == "model" for e in entries)
        self.delivery = Delivery(folder, run_id, entries)
        self._ending, self._ended, self._complete = threading.Lock(), False, False
        self.problem: Exception | None = None
        """Why the store does not have everything, once the run has ended."""
        self.sender = Sender(
            self.journal, self.delivery, store.ERRORS, _together, _report, gone=(store.Gone,)
        )

    def log_params(self, values: Mapping[str, object]) -> None:
        self.append("params", values={name: str(value) for name, value in values.items()})

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """The first value of each name at each step counts."""
        step = step or 0
        new = {name: float(value) for name, value in values.items() if (name, step) not in self._points}
        if new:
            self.append("metrics", values=new, step=step)
            self._points |= {(name, step) for name in new}

    def log_system(self, values: Mapping[str, float]) -> None:
        """Log what the machine does, from another thread, as the next point of its curves; nothing once the run ends."""
        if self._ending.acquire(blocking=False):
            try:
                if not self._ended:
                    self.log_metrics(values, self._next_sample)
                    self._next_sample += 1
            finally:
                self._ending.release()

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self.append("tags", values={name: str(value) for name, value in tags.items()})

    def log_data(self, record: Mapping[str, Any], context: str = "training") -> None:
        self.append("data", record=dict(record), context=context)

    def log_dict(self, content: dict | list, file: str) -> None:
        dumped = (
            yaml.dump(content, default_flow_style=False, sort_keys=False)
            if file.endswith((".yaml", ".yml"))
            else json.dumps(content, indent=2, ensure_ascii=False)
        )
        self.log_text(dumped, file)

    def log_text(self, text: str, file: str) -> None:
        self._spooled("artifact", lambda folder: (folder / Path(file).name).write_text(text), file=file)

    def log_figure(self, figure: Any, file: str) -> None:
        self._spooled("artifact", lambda folder: figure.savefig(folder / Path(file).name), file=file)

    def log_artifact(self, path: Path) -> None:
        """Store a file, or a folder with all that is in it; it is moved away from where it lies."""
        self._spooled("artifact", lambda folder: path.rename(folder / path.name), file=path.name)

    def log_model(
        self, bundle: Path, base: Path | None, example: Mapping[str, str], metrics: Mapping[str, float]
    ) -> None:
        """Store the trained model, once; both folders are moved away from where they lie."""
        if self._has_model:
            return

        def take(folder: Path) -> None:
            bundle.rename(folder / "bundle")
            if base is not None:
                base.rename(folder / "base")

        values = {name: float(value) for name, value in metrics.items()}
        self._spooled("model", take, based=base is not None, example=dict(example), metrics=values)
        self._has_model = True

    def end(self, status: str, failure: str | None = None, at_most: float | None = None) -> bool:
        """Record how the run has ended, and wait for the store, at most `at_most` seconds; whether it has everything.

        The first call counts: a second thread may make it in the place of one that is stuck.
        """
        if at_most is None:
            at_most = math.inf if status == "FINISHED" else HURRY
        with self._ending:
            if not self._ended:
                if failure:
                    self.set_tags({"failure": failure})
                self.append("end", status=status)
                self._ended = True
                self._complete = self.sender.close(PATIENCE, at_most)
                self.problem = self.sender.problem
                self.journal.close()
            return self._complete

    def interrupt(self) -> None:
        """From another thread, where the one that trains is stuck: the run ends KILLED."""
        self.end("KILLED", at_most=LAST_WORD)

    def go_on(self) -> None:
        """Record that the run goes on."""
        self.append("go_on")

    def append(self, do: str, **content: Any) -> None:
        """Record an entry. do: what the store is to do with it, one of the keys of `Delivery.handlers`."""
        self.sender.append({"do": do, "at": int(time.time() * 1000), **content})

    def _spooled(self, do: str, fill: Callable[[Path], object], **content: Any) -> None:
        """Put files into the folder of the entry's number, then append the entry: a recorded entry has its files whole."""
        number = len(self.journal.entries)
        folder = self.folder / SPOOL / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fill(folder)
        self.append(do, files=number, **content)


class Delivery:
    """Sends the entries of a journal to MLflow; sending one twice gives the same as sending it once."""

    def __init__(self, folder: Path, run_id: str, entries: list[Entry]):
        self.folder, self.run_id = folder, run_id
        self.model_uri: str | None = None
        self.handlers: dict[str, Callable[[runs.Run, Entry], object]] = {
            "params": lambda run, entry: run.log_params(entry["values"]),
            "metrics": lambda run, entry: run.log_points([_point(entry)]),
            "tags": lambda run, entry: run.set_tags(entry["values"]),
            "data": lambda run, entry: run.log_data(entry["record"], entry["context"]),
            "artifact": self._artifact,
            "model": self._model,
            "go_on": lambda run, entry: runs.go_on(run_id),
            "end": lambda run, entry: runs.end(run_id, entry["status"], entry["at"]),
        }
        """What is done with an entry, by its `do`."""
        self._run: runs.Run | None = None
        self._watch = store.Watch()
        tests = [e["record"] for e in entries if e["do"] == "data" and e["context"] == "testing"]
        self._tested_on = tests[-1] if tests else None

    def __call__(self, entries: list[Entry]) -> None:
        """Gone if the store does not have the run any more, before or after the entries were sent."""
        self._check()
        try:
            self._deliver(entries)
        except store.ERRORS:
            if reason := runs.why_missing(self.run_id):
                raise self._gone(reason) from None
            raise
        self._check()

    def _check(self) -> None:
        try:
            self._watch.check()
        except store.Gone as error:
            raise self._gone(str(error)) from None

    def _gone(self, reason: str) -> store.Gone:
        return store.Gone(f"run {self.run_id} is not in it any more: {reason}.")

    def _deliver(self, entries: list[Entry]) -> None:
        if self._run is None:
            self._run = runs.Run(self.run_id)
            if self._tested_on:
                # So that the scores of a model that comes later refer to it.
                self._run.log_data(self._tested_on, "testing")
        if entries[0]["do"] == "metrics":
            self._run.log_points([_point(entry) for entry in entries])
        else:
            for entry in entries:
                self.handlers[entry["do"]](self._run, entry)

    def _artifact(self, run: runs.Run, entry: Entry) -> None:
        folder, file = self.folder / SPOOL / str(entry["files"]), Path(entry["file"])
        parent = file.parent.as_posix()
        run.log_artifact(folder / file.name, None if parent == "." else parent)

    def _model(self, run: runs.Run, entry: Entry) -> None:
        folder = self.folder / SPOOL / str(entry["files"])
        self.model_uri = model_logging.log_model(
            run,
            folder / "bundle",
            folder / "base" if entry["based"] else None,
            entry["example"],
            entry["metrics"],
            entry["at"],
        )


def _point(entry: Entry) -> tuple[dict[str, float], int, int]:
    """(values, step, time in milliseconds since 1970) of an entry of metrics."""
    return entry["values"], entry["step"], entry["at"]


def _together(first: Entry, other: Entry) -> bool:
    return first["do"] == other["do"] == "metrics"


def _report(text: str) -> None:
    print(f"\nMLflow store: {text}", file=sys.stderr, flush=True)


@contextmanager
def recorded(
    folder: Path, state: dict[str, Any], experiment_name: str, run_name: str, tags: Mapping[str, str]
) -> Iterator[Recorder]:
    """A run that ends FINISHED; FAILED with the message as tag `failure`; KILLED when interrupted or asked to exit.

    state: what `run_folder.own` gave, with the run's fingerprint; with `run_id`, that run goes on, whether or not the store
    answers. UserError if a new run cannot be made, or if the run has finished and the store does not take everything.
    """
    recorder = _recorder(folder, state, experiment_name, run_name)
    with stopping.farewell(recorder.interrupt):
        try:
            about, details, packages = provenance.tags(), provenance.details(), provenance.environment()
            recorder.set_tags({**about, **tags})
            recorder.log_dict(details, provenance.FILE)
            recorder.log_text(packages, "environment.txt")
            yield recorder
        except BaseException as error:
            _end_with(recorder, error)
            raise
        if not recorder.end("FINISHED"):
            raise _unsent(folder, recorder.id, recorder.problem)


def _recorder(folder: Path, state: dict[str, Any], experiment_name: str, run_name: str) -> Recorder:
    """The recorder of the state's run; of a new one if it names none."""
    if run_id := state.get("run_id"):
        recorder = Recorder(folder, run_id)
        recorder.go_on()
        return recorder
    state = {"ticket": uuid.uuid4().hex, "experiment_name": experiment_name, "run_name": run_name} | state
    write_json(folder / STATE, state)
    run_id = runs.create(experiment_name, run_name, state["ticket"])
    write_json(folder / STATE, state | {"run_id": run_id})
    return Recorder(folder, run_id)


def _end_with(recorder: Recorder, error: BaseException) -> None:
    """End a run that an error stopped; the error is not hidden by another one that comes up here."""
    killed = isinstance(error, KeyboardInterrupt | SystemExit)
    try:
        recorder.end("KILLED" if killed else "FAILED", None if killed else f"{type(error).__name__}: {error}")
    except (UserError, OSError) as second:
        print(f"The end of run {recorder.id} could not be recorded: {second}", file=sys.stderr)


def finished(folder: Path) -> str | None:
    """The id of the run whose journal in this folder is complete, whether or not the store has all of it."""
    run_id = read_state(folder).get("run_id")
    if run_id is None:
        return None
    journal = Journal(folder)
    journal.close()
    return run_id if journal.entries and _is_finish(journal.entries[-1]) else None


def send(folder: Path, patience: float | None = None, new_run: bool = False) -> tuple[str, int, str | None]:
    """Send the store what it lacks of the run in this folder, which the caller holds; a finished run's folder is removed.

    patience: seconds, default PATIENCE. new_run: if the store does not have the run any more, everything is logged into a
    new one. Returns (the run's id, how many entries were sent, the status that the run has ended with or None). UserError
    if the store does not take everything.
    """
    state, journal = read_state(folder), Journal(folder)
    if new_run and _is_missing(state["run_id"]):
        state = _replace_run(folder, state, journal)
    run_id, entries, before = state["run_id"], journal.entries, journal.sent
    delivery = Delivery(folder, run_id, entries)
    sender = Sender(journal, delivery, store.ERRORS, _together, gone=(store.Gone,))
    done = sender.close(PATIENCE if patience is None else patience)
    journal.close()
    if not done:
        raise _unsent(folder, run_id, sender.problem)
    if len(entries) == before and (reason := _is_missing(run_id)):
        raise _unsent(folder, run_id, store.Gone(f"run {run_id} is not in it any more: {reason}"))
    ended = entries and entries[-1]["do"] == "end" and entries[-1]["status"] or None
    if ended == "FINISHED":
        remove(folder, state | {"finished": True})
    return run_id, len(entries) - before, ended


def _is_missing(run_id: str) -> str | None:
    with store.explained():
        return runs.why_missing(run_id)


def _replace_run(folder: Path, state: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """Make a new run in the place of one that the store lost; returns the state that was written.

    A process that is killed meanwhile finds the new run again by its ticket.
    """
    tags = {k: v for e in journal.entries if e["do"] == "tags" for k, v in e["values"].items()}
    name = state.get("run_name") or tags.get("technique", "run")
    experiment = state.get("experiment_name") or naming.experiment(
        task_of(tags.get("task", DEFAULT_TASK)), tags.get(naming.TAG, "")
    )
    ticket = state.get("next_ticket") or uuid.uuid4().hex
    write_json(folder / STATE, state | {"next_ticket": ticket})
    journal.forget()
    run_id = runs.create(experiment, name, ticket)
    state = {k: v for k, v in state.items() if k != "next_ticket"} | {"ticket": ticket, "run_id": run_id}
    write_json(folder / STATE, state)
    return state


def abandon(folder: Path) -> None:
    """Before an unfinished run's folder is removed: mark the run. UserError if it holds a finished run that cannot be sent."""
    if finished(folder):
        send(folder)
    elif run_id := read_state(folder).get("run_id"):
        Recorder(folder, run_id).end("KILLED")


def _is_finish(entry: Entry) -> bool:
    return entry["do"] == "end" and entry["status"] == "FINISHED"


def _unsent(folder: Path, run_id: str, problem: Exception | None) -> UserError:
    reason = first_line(problem, "it does not answer")[:300].rstrip(".")
    place = shlex.quote(str(folder))
    if isinstance(problem, store.Gone):
        return UserError(
            f"MLflow store: {store.without_secrets(reason)}. What was recorded is whole in {folder}: {command('sync.py')} "
            f"--new_run {place} logs it into a new run; if the store is restored from a backup, leave --new_run out."
        )
    return UserError(
        f"The MLflow store did not take everything of run {run_id}: {store.without_secrets(reason)}. Nothing is lost: when "
        f"it can be reached, run {command('sync.py')} {place}"
    )
