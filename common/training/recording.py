"""A training's MLflow run, told through a journal in its output folder: nothing that happens to the store stops the training,
and what the store does not have yet is told later, once."""

import json
import math
import shlex
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from .. import stopping
from ..errors import UserError, first_line
from ..files import write_json
from ..paths import command
from ..serving import model_logging
from ..tasks.table import DEFAULT_TASK, task_of
from ..tracking import provenance, runs, store
from ..tracking.journal import Journal, Sender
from .run_folder import STATE, read_state, remove

SPOOL = "spool"
"""Folder of the files that entries tell of, by the number of the entry. They stay until the store has the whole run: it may
be deleted, and is told everything again then."""

PATIENCE = 30.0
"""Seconds that a training which has ended tries a store that does not answer."""

HURRY = 4.0
"""Seconds that one which was stopped waits for the store, whether or not it answers."""

LAST_WORD = 2.5
"""Seconds of the same where the process ends in the middle of a computation."""


class Recorder:
    """What `tracking.Run` offers a training. Each call returns once what it tells is on the disk; a background thread tells the store.

    A point of a curve that the journal has is not told again, so that a run that goes on from a checkpoint leaves each
    point once.
    """

    def __init__(self, folder: Path, run_id: str):
        self.id, self.folder, self.uri = run_id, folder, f"runs:/{run_id}"
        self.journal = Journal(folder)
        entries = self.journal.entries
        self._points = {(name, e["step"]) for e in entries if e["do"] == "metrics" for name in e["values"]}
        self._has_model = any(e["do"] == "model" for e in entries)
        self.delivery = Delivery(folder, run_id, entries)
        self._ending, self._ended, self._complete = threading.Lock(), False, False
        self._sender = Sender(self.journal, self.delivery, store.ERRORS, _together, _say, gone=(store.Gone,))

    def log_params(self, values: Mapping[str, object]) -> None:
        self._append("params", values={name: str(value) for name, value in values.items()})

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """The first value of each name at each step counts."""
        step = step or 0
        new = {name: float(value) for name, value in values.items() if (name, step) not in self._points}
        if new:
            self._append("metrics", values=new, step=step)
            self._points |= {(name, step) for name in new}

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self._append("tags", values={name: str(value) for name, value in tags.items()})

    def log_data(self, record: Mapping, context: str = "training") -> None:
        self._append("data", record=dict(record), context=context)

    def log_dict(self, content: dict | list, file: str) -> None:
        dumped = (
            yaml.dump(content, default_flow_style=False, sort_keys=False)
            if file.endswith((".yaml", ".yml"))
            else json.dumps(content, indent=2, ensure_ascii=False)
        )
        self.log_text(dumped, file)

    def log_text(self, text: str, file: str) -> None:
        self._spooled("artifact", lambda folder: (folder / Path(file).name).write_text(text), file=file)

    def log_figure(self, figure, file: str) -> None:
        self._spooled("artifact", lambda folder: figure.savefig(folder / Path(file).name), file=file)

    def log_artifact(self, path: Path | str) -> None:
        """Store a file, or a folder with all that is in it, which is taken away from where it is."""
        path = Path(path)
        self._spooled("artifact", lambda folder: path.rename(folder / path.name), file=path.name)

    def log_model(
        self, bundle: Path, base: Path | None, example: Mapping[str, str], metrics: Mapping[str, float]
    ) -> None:
        """`serving.log_model`; both folders are taken away from where they are."""
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
        """Tell how the run has ended, and wait for the store, `at_most` so many seconds; whether it has everything.

        The first that is told counts: a second thread may say it in the place of one that is stuck.
        """
        if at_most is None:
            at_most = math.inf if status == "FINISHED" else HURRY
        with self._ending:
            if not self._ended:
                if failure:
                    self.set_tags({"failure": failure})
                self._append("end", status=status)
                self._ended = True
                self._complete = self._sender.close(PATIENCE, at_most)
                self.problem = self._sender.problem
                self.journal.close()
            return self._complete

    def interrupt(self) -> None:
        """From another thread, where the one that trains is stuck: the run ends KILLED."""
        self.end("KILLED", at_most=LAST_WORD)

    def go_on(self) -> None:
        """Tell that the run goes on."""
        self._append("go_on")

    def _append(self, do: str, **content) -> None:
        self._sender.append({"do": do, "at": int(time.time() * 1000), **content})

    def _spooled(self, do: str, fill, **content) -> None:
        """Lay files where the entry's number says, then append the entry: one that is there has its files whole."""
        number = len(self.journal.entries)
        folder = self.folder / SPOOL / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fill(folder)
        self._append(do, files=number, **content)


class Delivery:
    """Tells MLflow the entries of a journal; telling one twice is telling it once."""

    def __init__(self, folder: Path, run_id: str, entries: list[dict]):
        self.folder, self.run_id = folder, run_id
        self.model_uri: str | None = None
        self._run: runs.Run | None = None
        self._watch = store.Watch()
        tests = [e["record"] for e in entries if e["do"] == "data" and e["context"] == "testing"]
        self._tested_on = tests[-1] if tests else None

    def __call__(self, entries: list[dict]) -> None:
        """Gone where the store has no such run any more: before, or while it is told."""
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

    def _deliver(self, entries: list[dict]) -> None:
        if self._run is None:
            self._run = runs.Run(self.run_id)
            if self._tested_on:
                # So that it knows what the figures of a model that comes later are about.
                self._run.log_data(self._tested_on, "testing")
        if entries[0]["do"] == "metrics":
            self._run.log_points([(e["values"], e["step"], e["at"]) for e in entries])
        else:
            for entry in entries:
                getattr(self, f"_{entry['do']}")(entry)

    def _params(self, entry: dict) -> None:
        self._run.log_params(entry["values"])

    def _tags(self, entry: dict) -> None:
        self._run.set_tags(entry["values"])

    def _data(self, entry: dict) -> None:
        self._run.log_data(entry["record"], entry["context"])

    def _artifact(self, entry: dict) -> None:
        folder, file = self.folder / SPOOL / str(entry["files"]), Path(entry["file"])
        parent = file.parent.as_posix()
        self._run.log_artifact(folder / file.name, None if parent == "." else parent)

    def _model(self, entry: dict) -> None:
        folder = self.folder / SPOOL / str(entry["files"])
        self.model_uri = model_logging.log_model(
            self._run,
            folder / "bundle",
            folder / "base" if entry["based"] else None,
            entry["example"],
            entry["metrics"],
            entry["at"],
        )

    def _go_on(self, entry: dict) -> None:
        runs.go_on(self.run_id)

    def _end(self, entry: dict) -> None:
        runs.end(self.run_id, entry["status"], entry["at"])


def _together(first: dict, other: dict) -> bool:
    return first["do"] == other["do"] == "metrics"


def _say(text: str) -> None:
    print(f"\nMLflow store: {text}", file=sys.stderr, flush=True)


@contextmanager
def recorded(
    folder: Path, state: dict, experiment_name: str, run_name: str, tags: Mapping[str, str]
) -> Iterator[Recorder]:
    """A run that ends FINISHED; FAILED with the message as tag `failure`; KILLED when interrupted or told to exit.

    state: what `workspace.own` gave, with the run's fingerprint; with `run_id`, that run goes on, whether or not the store
    answers. UserError if a new run cannot be made, or if the run has finished and the store cannot be told.
    """
    if run_id := state.get("run_id"):
        recorder = Recorder(folder, run_id)
        recorder.go_on()
    else:
        state = {"ticket": uuid.uuid4().hex, "experiment_name": experiment_name, "run_name": run_name} | state
        write_json(folder / STATE, state)
        run_id = runs.create(experiment_name, run_name, state["ticket"])
        write_json(folder / STATE, state | {"run_id": run_id})
        recorder = Recorder(folder, run_id)
    with stopping.farewell(recorder.interrupt):
        try:
            about, details, packages = provenance.tags(), provenance.details(), provenance.environment()
            recorder.set_tags({**about, **tags})
            recorder.log_dict(details, provenance.FILE)
            recorder.log_text(packages, "environment.txt")
            yield recorder
        except BaseException as error:
            killed = isinstance(error, KeyboardInterrupt | SystemExit)
            try:
                recorder.end(
                    "KILLED" if killed else "FAILED",
                    None if killed else f"{type(error).__name__}: {error}",
                )
            except (UserError, OSError) as second:
                # What happened first must not be hidden.
                print(f"How run {run_id} ended could not be kept: {second}", file=sys.stderr)
            raise
        if not recorder.end("FINISHED"):
            raise _unsent(folder, run_id, recorder.problem)


def finished(folder: Path) -> str | None:
    """The id of the run whose journal in this folder is complete, whether or not the store has all of it."""
    run_id = read_state(folder).get("run_id")
    if run_id is None:
        return None
    journal = Journal(folder)
    journal.close()
    return run_id if journal.entries and _is_finish(journal.entries[-1]) else None


def send(folder: Path, patience: float | None = None, new_run: bool = False) -> tuple[str, int, str | None]:
    """Tell the store what it does not have yet of the run in this folder, which the caller holds; a finished run's folder is removed.

    patience: seconds, default PATIENCE. new_run: where the store has no such run any more, everything is logged into a new
    one. Returns (the run's id, how many entries were told, the status that the run has ended with or None). UserError if
    the store cannot be told everything.
    """
    state, journal = read_state(folder), Journal(folder)
    if new_run and _is_missing(state["run_id"]):
        state = _replace_run(folder, state, journal)
    run_id, entries, before = state["run_id"], journal.entries, journal.told
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


def _replace_run(folder: Path, state: dict, journal: Journal) -> dict:
    """A new run in the place of one that the store lost; the state that was written. Killed meanwhile, it finds it again."""
    tags = {k: v for e in journal.entries if e["do"] == "tags" for k, v in e["values"].items()}
    name = state.get("run_name") or tags.get("technique", "run")
    experiment = state.get("experiment_name") or task_of(tags.get("task", DEFAULT_TASK)).experiment
    ticket = state.get("next_ticket") or uuid.uuid4().hex
    write_json(folder / STATE, state | {"next_ticket": ticket})
    journal.forget()
    run_id = runs.create(experiment, name, ticket)
    state = {k: v for k, v in state.items() if k != "next_ticket"} | {"ticket": ticket, "run_id": run_id}
    write_json(folder / STATE, state)
    return state


def abandon(folder: Path) -> None:
    """Before an unfinished run's folder is removed: mark the run. UserError if it holds a finished run that cannot be told."""
    if finished(folder):
        send(folder)
    elif run_id := read_state(folder).get("run_id"):
        Recorder(folder, run_id).end("KILLED")


def _is_finish(entry: dict) -> bool:
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
        f"The MLflow store could not be told everything of run {run_id}: {store.without_secrets(reason)}. Nothing is lost: when "
        f"it can be reached, run {command('sync.py')} {place}"
    )
