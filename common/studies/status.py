"""The status of each row of a study, from the store and the study's notes."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import NotHere, UserError
from ..models.untrained import PREFIX, make
from ..paths import ROOT
from ..scoring.sequential import Decided
from ..tasks.table import task_of
from ..tracking import runs
from ..training.settings import RunArgs, Technique, settled
from . import decisions, outcomes, search
from .declaration import Point, Row, Stage, Study, expand
from .folder import Folder
from .sections import folder_name


@dataclass(frozen=True)
class Planned:
    """A row that was checked."""

    technique: Technique
    """With the learning rate that its model decides, where the row sets none."""
    args: RunArgs
    experiment: str
    """The MLflow experiment."""
    key: str
    """Fingerprint of the run."""
    amount: float
    """Epochs × training examples."""


@dataclass(frozen=True)
class Entry:
    """The status of a row: "finished", "failed", "stopped" (by a scheduler, as one of the bad ones, or left out because the
    stage's comparison is decided without it), "pending", "undecided"
    while an earlier stage or the search for it is not finished, or "unchecked" if this machine cannot check it."""

    row: Row
    status: str
    run_id: str | None = None
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    """From the run's start to its end, according to the store."""
    decision: Decided | None = None
    """That of its candidate, in a stage with a `stop`, once there is one."""


Best = dict[str, Point]
"""Entry → the point that `best_of` chose."""

UNFINISHED = ("pending", "undecided", "unchecked")
"""Statuses of rows whose scores are still to come."""

StageDone = Callable[[Stage, list[Entry], Best | None], list[Entry]]
"""(stage, its entries, what `best_of` chose) → the entries after the stage was trained."""


class Status:
    """The rows of a study, each planned once.

    only_show: nothing will run, so that a row that cannot be checked on this machine is "unchecked" instead of an error.
    """

    def __init__(self, study: Study, folder: Folder, only_show: bool = False):
        self.study, self.folder, self.only_show = study, folder, only_show
        self.task = task_of(study.task)
        self.plans: dict[str, Planned] = {}
        self._sizes: dict[tuple[str, str | None, str], int] = {}
        self._finished: dict[str, Entry] = {}
        """Row name → the row as it was found finished."""
        self._store: NotHere | None = None
        """Why the store does not answer; it is not asked again."""

    def check(self) -> None:
        """Plan every possible row before any is run; UserError for the first that is impossible."""
        for stage in self.study.stages:
            entries: dict[str, str] = {}
            for row in expand(self.study, stage, self.size):
                with contextlib.suppress(*([NotHere] if self.only_show else [])):
                    if (other := entries.setdefault(self.plan(row).key, row.entry)) != row.entry:
                        raise UserError(
                            f"{self.study.file}, row {row.name}: {row.entry} is the same as {other} here; "
                            "set a field apart, or take one out."
                        )

    def size(self, task: str, data_dir: str | None, split: str) -> int:
        """How many examples a split of prepared data holds; 0 if the data is not here and rows are only shown."""
        asked = (task, data_dir, split)
        if asked not in self._sizes:
            try:
                self._sizes[asked] = size(*asked)
            except NotHere:
                if not self.only_show:
                    raise
                self._sizes[asked] = 0
        return self._sizes[asked]

    def plan(self, row: Row) -> Planned:
        """Settle and check a row; UserError names the file and the row; NotHere if it is impossible on this machine only."""
        from ..training import planning

        if row.name in self.plans:
            return self.plans[row.name]
        try:
            args = dataclasses.replace(row.args, model_checkpoint=checkpoint(row.args.model_checkpoint))
            planned = planning.plan(row.technique, args)
        except UserError as error:
            raise type(error)(f"{self.study.file}, row {row.name}: {error}") from error
        output_dir = self.folder.checkpoints(f"{row.technique.key}-{planned.key[:12]}")
        # The row must train what `auto` means here.
        args = dataclasses.replace(
            planned.args, model_checkpoint=planned.checkpoint.name, output_dir=str(output_dir)
        )
        amount = outcomes.amount(row, len(planned.splits["train"]))
        return self.plans.setdefault(
            row.name, Planned(planned.technique, args, planned.experiment, planned.key, amount)
        )

    def look(self, row: Row) -> Entry:
        """The status of one row."""
        if not self.only_show:
            return self._look(row, self.plan(row))
        try:
            planned = self.plan(row)
        except NotHere as error:
            return Entry(row, "unchecked", reason=str(error.__cause__))
        try:
            if self._store is None:
                return self._look(row, planned)
        except NotHere as error:
            self._store = error
        return Entry(row, "unchecked", reason=str(self._store))

    def _look(self, row: Row, planned: Planned) -> Entry:
        run_id = runs.finished_run(planned.experiment, planned.key)
        if run_id and (held := runs.recorded(run_id)):
            self._finished[row.name] = Entry(
                row, "finished", run_id, metrics=held["metrics"], tags=held["tags"], seconds=held["seconds"]
            )
            return self._finished[row.name]
        noted = self.folder.state["rows"].get(planned.key, {})
        if noted.get("status") in ("failed", "stopped"):
            return Entry(row, noted["status"], reason=noted["reason"])
        return Entry(row, "pending")

    def proposed(self, stage: Stage) -> dict[str, list[Point]]:
        """Entry → the points that the stage's search has proposed so far, from the study's notes."""
        noted = self.folder.state.get("proposed", {}).get(stage.name, {})
        return {
            key: [point for point in noted.get(key, []) if search.within(point, spaces)]
            for key, spaces in stage.searches.items()
            if spaces
        }

    def row(self, stage: Stage, key: str, point: Point, best: Best | None) -> Row:
        """The row of a point of a technique's search."""
        rows = expand(self.study, stage, self.size, best, {key: [point]})
        return next(row for row in rows if row.entry == key)

    def propose(self, stage: Stage, key: str, point: Point, best: Best | None) -> Row:
        """Plan and note the row of a point that a search proposes; UserError if it cannot be trained."""
        row = self.row(stage, key, point, best)
        self.plan(row)
        noted = self.folder.state.setdefault("proposed", {}).setdefault(stage.name, {})
        noted.setdefault(key, []).append(point)
        self.folder.save()
        return row

    def trials_left(self, stage: Stage, best: Best | None) -> dict[str, int]:
        """Entry → how many points its search may still propose: at most as many as its space has."""
        swept = self.study.stage(stage.best_of).fields if stage.best_of else {}
        return {
            key: max(0, int(min(stage.trials, search.count(stage.searches[key]))) - len(points))
            for key, points in self.proposed(stage).items()
            if best is None or key in best or key not in swept
        }

    def survey(
        self, stage_done: StageDone = lambda stage, found, best: found, recall: bool = False
    ) -> list[Entry]:
        """The status of every row. stage_done may train a stage before the next one is decided. recall: the store is not asked
        again for rows that were found finished, which is enough to say how much is left."""
        found: dict[str, list[Entry]] = {}
        for stage in self.study.stages:
            below = found.get(stage.best_of, []) if stage.best_of else []
            if stage.best_of and any(entry.status in UNFINISHED for entry in below):
                # As many rows as there will be; their values stand for those that are not decided yet.
                swept = self.study.stage(stage.best_of)
                assumed = {key: swept.candidates(key)[0] for key in swept.fields}
                rows = expand(self.study, stage, self.size, assumed)
                found[stage.name] = [Entry(row, "undecided") for row in rows]
                continue
            best = None
            if stage.best_of:
                best = outcomes.best_points([entry.row for entry in below], self.scores(below))
            found[stage.name] = stage_done(stage, self.entries(stage, best, recall), best)
        return [entry for entries in found.values() for entry in entries]

    def entries(self, stage: Stage, best: Best | None, recall: bool = False) -> list[Entry]:
        """The status of the rows of a stage that is decided, with a row for each trial that will still be proposed. recall: as in
        `survey`."""
        rows = expand(self.study, stage, self.size, best, self.proposed(stage))
        known = self._finished if recall else {}
        found = [known.get(row.name) or self.look(row) for row in rows]
        if stage.stop:
            return decisions.settled(self.study, stage, found, self.task.metric)
        left = self.trials_left(stage, best)
        for row in expand(self.study, stage, self.size, best):
            key = row.entry
            count = left.pop(key, 0)
            for i in range(count):
                trial = f"(trial {stage.trials - count + i + 1} of {stage.trials})"
                name = "-".join(
                    [stage.name] * (len(self.study.stages) > 1)
                    + [folder_name(key), trial, f"seed={row.args.seed}"]
                )
                found.append(Entry(dataclasses.replace(row, name=name), "undecided"))
        return found

    def scores(self, entries: Sequence[Entry]) -> dict[str, float | None]:
        """Row name → the validation score by which points are chosen; None for a candidate that is decided: it is not."""
        name = f"best_validation_{self.task.metric}"
        return {entry.row.name: None if entry.decision else entry.metrics.get(name) for entry in entries}

    def seconds_left(
        self, entries: Sequence[Entry], passed: Mapping[str, float] | None = None
    ) -> float | None:
        """The time of the rows that are left, each as a whole, one after another; None if nothing was measured.

        passed: row name → seconds that it has already run.
        """
        costs = self.costs(entries)
        waiting = [entry.row for entry in entries if entry.status in ("pending", "undecided")]
        return outcomes.estimate(
            costs, [self.work(row, (passed or {}).get(row.name, 0.0)) for row in waiting]
        )

    def costs(self, entries: Sequence[Entry]) -> list[outcomes.Cost]:
        """What the finished rows took."""
        finished = [entry for entry in entries if entry.status == "finished"]
        noted = {entry.row.name: self.seconds(entry.row) for entry in finished}
        measured = any(seconds is not None for seconds in noted.values())
        return [
            outcomes.Cost(
                self.work(entry.row),
                entry.metrics.get("training_seconds", 0.0),
                # The store's time starts after the imports, and includes the time during which a run was stopped.
                noted[entry.row.name] if measured else entry.seconds,
            )
            for entry in finished
        ]

    def seconds(self, row: Row) -> float | None:
        """The noted time of a row as a whole."""
        return self.folder.state.get("seconds", {}).get(self.plan(row).key)

    def work(self, row: Row, passed: float = 0.0) -> outcomes.Work:
        """What the time of a row depends on. passed: seconds that it has already run."""
        planned = self.plan(row)
        return outcomes.Work(row.entry, planned.args.model_checkpoint, planned.amount, passed)


def size(task: str, data_dir: str | None, split: str) -> int:
    """How many examples a split of prepared data holds."""
    from ..data.ensure import ensure

    folder = settled(RunArgs(task=task, data_dir=data_dir)).data_dir
    return len(ensure(Path(str(folder)), task_of(task).data)[0][split])


def checkpoint(name: str) -> str:
    """A checkpoint's name; the small untrained models are made on demand."""
    return str(make(name, ROOT / "mlruns" / "untrained")) if name.startswith(PREFIX) else name
