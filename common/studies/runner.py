"""Runs a study: trains the rows that are left, one after another, and writes the report."""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from ..durations import clock
from ..files import write_json
from ..scoring.names import LABELS
from ..tracking import runs
from ..training.run_folder import STATE
from . import decisions, results
from .clock import Clock
from .declaration import Row, Stage, Study
from .row_starter import Starter
from .status import Best, Entry, Status

DECISIONS = "decisions.json"
"""What was decided early, in the study's folder and run."""


class RowsFailed(Exception):
    """Some rows of a study have failed; all others are finished."""


class Runner:
    """Trains the rows of a study that are left, one after another, in child processes."""

    def __init__(
        self,
        status: Status,
        scripts: Mapping[str, Path],
        retry_failed: bool = False,
        starter: Starter | None = None,
    ):
        """scripts: technique key → the script that trains it. retry_failed: train failed rows again. starter: one that its
        owner ends; default: one that ends with the rows."""
        self.status, self.folder, self.study = status, status.folder, status.study
        self.scripts, self.retry_failed, self.clock = scripts, retry_failed, Clock(status)
        self.position, self.total = 0, 0
        self.parent: str | None = None
        """Id of the study's MLflow run; the rows are its children."""
        self.starter, self._is_lent = starter or Starter(), starter is not None

    def run(self) -> str:
        """Train what is left and report; the rows that failed with their reasons, "" if none did."""
        entries = self.status.survey()
        again = self.retry_failed and any(entry.status == "failed" for entry in entries)
        if not again and self.folder.state.get("reported") == content_of_report(self.study, entries):
            print(f"{self.study.name}: nothing to do.\n\n{results.as_text(self.status, entries)}\n")
            print(f"The report is in {self.folder.path}.")
            return results.failures(entries)
        parent = self.folder.state.get("parent_run")
        if parent and runs.recorded(parent) is None:
            # It was deleted, or the store is another one.
            parent = None
        experiment = self.status.plan(entries[0].row).experiment
        try:
            with runs.start(experiment, self.study.name, {"study": self.study.name}, parent) as run:
                self.total = len(entries)
                self._run_below(run)
        except RowsFailed as error:
            return str(error)
        finally:
            self.clock.stop_all()
            self.folder.save()
        return ""

    def _run_below(self, parent: runs.Run) -> None:
        """Train the rows as children of an MLflow run, which then gets the study's files; RowsFailed if some failed."""
        self.parent = self.folder.state["parent_run"] = parent.id
        self.folder.save()
        parent.log_text(Path(self.study.file).read_text(encoding="utf-8"), "study.yaml")
        with self.workers():
            entries = self.status.survey(self.run_stage)
        # Its drawing library is only needed here.
        from ..reports import study_report

        made = decisions.record(self.status, entries)
        # Without a rule there is none; one of an earlier call says nothing any more.
        (self.folder.path / DECISIONS).unlink(missing_ok=True)
        if made:
            write_json(self.folder.path / DECISIONS, made)
            parent.log_artifact(self.folder.path / DECISIONS)
        files = results.write(self.status, entries, parent.id, study_report.write_report, made)
        for file in files:
            inside = file.parent.relative_to(self.folder.path)
            parent.log_artifact(file, str(inside) if inside.parts else None)
        self.folder.state["reported"] = content_of_report(self.study, entries)
        self.folder.save()
        print(f"\n{results.as_text(self.status, entries)}\n")
        for sentence in results.edges(self.status, entries):
            print(f"At the edge of the grid: {sentence}")
        print(f"Written to {self.folder.path}: {', '.join(file.name for file in files)}")
        if failed := results.failures(entries):
            raise RowsFailed(failed)

    def workers(self) -> AbstractContextManager[Any]:
        """What the rows are trained with; open while they are trained."""
        self.starter.open()
        return nullcontext(self.starter) if self._is_lent else self.starter

    def run_stage(self, stage: Stage, entries: list[Entry], best: Best | None) -> list[Entry]:
        """Train what is left of a stage; its rows with their new status. best: what `best_of` chose."""
        return self.train(stage, entries, best) if stage.stop is None else self._decide(stage, entries, best)

    def train(self, stage: Stage, entries: Sequence[Entry], best: Best | None) -> list[Entry]:
        """Train those of these rows of a stage that are due; all with their new status."""
        return [self._run_row(entry) for entry in entries]

    def _decide(self, stage: Stage, entries: list[Entry], best: Best | None) -> list[Entry]:
        """Train a stage seed by seed, until it is decided."""
        study, metric = self.study, self.status.task.metric
        # Rows that are finished are not among those that are due.
        self.position += sum(entry.status == "finished" for entry in entries)
        again = {entry.row.name for entry in entries if entry.status == "failed" and self.retry_failed}
        known = {entry.decision.candidate for entry in entries if entry.decision}
        # What was left out is needed again where --retry_failed gives its candidate another chance.
        held = {
            entry.row.name: dataclasses.replace(entry, status="pending", decision=None)
            if entry.status == "stopped"
            else entry
            for entry in entries
        }
        tried: set[str] = set()
        while due := decisions.due(study, stage, list(held.values()), metric, again) - tried:
            trained = self.train(stage, [held[name] for name in held if name in due], best)
            held |= {entry.row.name: entry for entry in trained}
            tried |= due
            again -= due
            for entry in decisions.settled(study, stage, list(held.values()), metric):
                if entry.decision and entry.decision.candidate not in known:
                    known.add(entry.decision.candidate)
                    why = decisions.sentence(entry.decision, len(stage.seeds), metric)
                    print(f"{entry.decision.candidate}: no more seeds; {why}", flush=True)
        return [self.keep(entry) for entry in self.status.entries(stage, best)]

    def _run_row(self, entry: Entry) -> Entry:
        self.position += 1
        if self.is_due(entry):
            self._train(entry.row)
            entry = self.status.look(entry.row)
            self.report(entry)
        return self.keep(entry)

    def is_due(self, entry: Entry) -> bool:
        """Whether a row must be trained."""
        return entry.status == "pending" or entry.status == "failed" and self.retry_failed

    def keep(self, entry: Entry) -> Entry:
        """Copy what a finished row left into the study's folder, and note that it has finished."""
        if entry.run_id:
            note = {"name": entry.row.name, "status": "finished", "run_id": entry.run_id}
            self.folder.state["rows"][self.status.plan(entry.row).key] = note
            results.collect(self.folder.row(entry.row.name), entry.run_id, entry.metrics)
        self.folder.save()
        return entry

    def _train(self, row: Row) -> None:
        """Run a row's script to its end; if it leaves no finished run, the study's notes hold the reason."""
        print(f"{self.label(row)}: training; it writes to {self.folder.log(row.name)}", flush=True)
        command = self.command(row)
        self.starter.ready()
        self.clock.start(row)
        code, why = self.folder.run(command, row.name, self.starter.start)
        self.clock.stop(row)
        self.note_failure(row, code, why)

    def command(self, row: Row) -> list[str]:
        """Prepare a row's folder; the script and the arguments that train it."""
        planned, folder = self.status.plan(row), self.folder.row(row.name)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_file(row)
        if (run_id := self.unfinished_run(row)) and runs.recorded(run_id) is None:
            # It was deleted, or the store is another one: the row cannot continue.
            shutil.rmtree(state.parent)
        if not state.is_file():
            self.clock.forget(row)
        fields: dict[str, Any] = dataclasses.asdict(row.technique) | dataclasses.asdict(planned.args)
        fields |= {"run_name": row.name, "resume": None, "skip_finished": None, "parent_run": None}
        fields = {name: value for name, value in fields.items() if value is not None}
        (folder / "row.yaml").write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
        script = [str(self.scripts[row.technique.key]), "--config", str(folder.resolve() / "row.yaml")]
        return [*script, "--resume", "--skip_finished", "--parent_run", str(self.parent)]

    def state_file(self, row: Row) -> Path:
        """The file that holds the state of an unfinished run of a row."""
        return Path(str(self.status.plan(row).args.output_dir)) / STATE

    def unfinished_run(self, row: Row) -> str | None:
        """The MLflow id of an unfinished run of a row; None if there is none."""
        file = self.state_file(row)
        return json.loads(file.read_text(encoding="utf-8")).get("run_id") if file.is_file() else None

    def note_failure(self, row: Row, code: int | None, why: str) -> None:
        """Note that a row has failed. Whether it has finished, the store says."""
        why = why or "it left no finished run of this content: did the code or the data change while it ran?"
        note = {"name": row.name, "status": "failed", "reason": why}
        self.folder.state["rows"][self.status.plan(row).key] = note
        if (code is None or code < 0) and (run_id := self.unfinished_run(row)):
            # Its process had no time to mark it.
            runs.fail(run_id, why)

    def report(self, entry: Entry) -> None:
        """Print how a row ended, and the time that is left."""
        about, metric = f"FAILED: {entry.reason}", self.status.task.metric
        if entry.status == "finished":
            found, label = entry.metrics, LABELS[metric]
            about = f"validation {label} {found[f'best_validation_{metric}']:.1f}, test {label} {found[f'test_{metric}']:.1f}"
            about += f", trained in {clock(found['training_seconds'])}"
        left = self.clock.left(self.status.survey(recall=True))
        print(f"{self.label(entry.row)}: {about}; {self.clock.passed()} passed, left {left}", flush=True)

    def label(self, row: Row) -> str:
        """A row's position and name."""
        return f"[{self.position}/{self.total}] {row.name}"


def content_of_report(study: Study, entries: Sequence[Entry]) -> list[list[str | None]]:
    """What a report is made from: the same rows with the same runs, decided by the same rules, need no new report."""
    rules = [[stage.name, repr(stage.stop), None] for stage in study.stages if stage.stop]
    return [[entry.row.name, entry.status, entry.run_id] for entry in entries] + rules
