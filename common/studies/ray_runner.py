"""Runs a study with Ray Tune: its rows, and those that searches propose, wherever there is room.

Needs requirements-ray.txt; only `--backend ray` imports this.
"""

import functools
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..scoring.names import LABELS
from ..tracking import runs, store
from . import ray_backend, ray_trial
from .declaration import Point, Row, Stage
from .runner import Runner
from .status import Best, Entry, Status


class RayRunner(Runner):
    """Trains the rows of a study that are left, as many at a time as a Ray cluster has room for."""

    def __init__(
        self,
        status: Status,
        scripts: Mapping[str, Path],
        retry_failed: bool = False,
        address: str | None = None,
    ):
        """address: the cluster's; None starts Ray on this machine."""
        super().__init__(status, scripts, retry_failed)
        self.address = address
        self.positions: dict[str, int] = {}

    def workers(self) -> AbstractContextManager[Any]:
        asked = [stage.resources for stage in self.study.stages]
        return ray_backend.connected(self.address, store.tracking_uri(), asked)

    def train(self, stage: Stage, entries: Sequence[Entry], best: Best | None) -> list[Entry]:
        due = [entry.row for entry in entries if self.is_due(entry)]
        self.position += sum(entry.status != "undecided" and not self.is_due(entry) for entry in entries)
        searches = self._searches(stage, best)
        if due or searches:
            hooks = ray_backend.Hooks(
                functools.partial(self._job, stage), self._report_start, self._end, self._stop
            )
            with tempfile.TemporaryDirectory() as scratch:
                ray_backend.carry_out(stage, due, searches, hooks, Path(scratch))
        if stage.stop:
            return [self.keep(self.status.look(entry.row)) for entry in entries]
        entries = [
            self.keep(entry) for entry in self.status.entries(stage, best) if entry.status != "undecided"
        ]
        for entry in entries:
            if entry.status == "stopped":
                self._clear(entry)
        return entries

    def _searches(self, stage: Stage, best: Best | None) -> list[ray_backend.Search]:
        """The searches of a stage that have points left."""
        left, points = self.status.trials_left(stage, best), self.status.proposed(stage)
        searches = []
        for key, spaces in stage.searches.items():
            if not left.get(key):
                continue
            known = [(point, self._score(stage, key, point, best)) for point in points[key]]
            propose = functools.partial(self.status.propose, stage, key, best=best)
            searches.append(ray_backend.Search(spaces, left[key], known, stage.seeds[0], propose))
        return searches

    def _score(self, stage: Stage, key: str, point: Point, best: Best | None) -> float | None:
        """The validation score of a point that was proposed before."""
        entry = self.status.look(self.status.row(stage, key, point, best))
        if entry.status == "stopped":
            return self.folder.state["rows"][self.status.plan(entry.row).key]["score"]
        return self.status.scores([entry])[entry.row.name]

    def _job(self, stage: Stage, row: Row) -> ray_trial.Job:
        planned = self.status.plan(row)
        return {
            "command": self.command(row),
            "log": str(self.folder.log(row.name).resolve()),
            "output_dir": str(planned.args.output_dir),
            "metric": self.status.task.metric,
            "epochs": row.technique.num_train_epochs,
            "threads": stage.resources.cpus,
            "cwd": os.getcwd(),
        }

    def _report_start(self, row: Row, again: bool) -> None:
        if again:
            print(f"{self.label(row)}: its worker died; it continues from its last checkpoint", flush=True)
            return
        self.clock.start(row)
        self.position += 1
        self.positions[row.name] = self.position
        print(f"{self.label(row)}: training; it writes to {self.folder.log(row.name)}", flush=True)

    def _end(self, row: Row, code: int | None, why: str) -> float | None:
        self.clock.stop(row)
        entry = self.status.look(row)
        if entry.status != "finished":
            self.note_failure(row, code, why)
            entry = self.status.look(row)
        self.report(self.keep(entry))
        return self.status.scores([entry])[row.name]

    def _stop(self, row: Row, epoch: float, score: float) -> None:
        self.clock.stop(row)
        why = (
            f"ASHA stopped it after epoch {epoch:g}: validation {LABELS[self.status.task.metric]} {score:.1f}"
        )
        note = {"name": row.name, "status": "stopped", "reason": why, "score": score}
        self.folder.state["rows"][self.status.plan(row).key] = note
        self.folder.save()
        print(f"{self.label(row)}: {why}", flush=True)

    def _clear(self, entry: Entry) -> None:
        """Mark the MLflow run of a row that was stopped, and remove the checkpoints from which it would have continued."""
        file = self.state_file(entry.row)
        if file.is_file():
            if run_id := self.unfinished_run(entry.row):
                runs.fail(run_id, entry.reason, "KILLED")
            shutil.rmtree(file.parent)

    def label(self, row: Row) -> str:
        return f"[{self.positions[row.name]}/{self.total}] {row.name}"
