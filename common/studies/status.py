"""What has become of each row of a study, by the store and the study's own notes."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import NotHere, UserError
from ..models.untrained import PREFIX, make
from ..paths import ROOT
from ..tasks.table import task_of
from ..tracking import runs
from ..training.settings import RunArgs, settled
from . import declaration, outcomes, search
from .folder import Folder


@dataclass(frozen=True)
class Planned:
    """A row that is known to be possible."""

    args: RunArgs
    key: str
    amount: float
    """Epochs × training examples."""


@dataclass(frozen=True)
class Entry:
    """What has become of a row: "finished", "failed", "stopped" (by a scheduler, as one of the bad ones), "pending",
    "undecided" while an earlier stage or the search for it goes on, or "unchecked" where this machine cannot tell."""

    row: declaration.Row
    status: str
    run_id: str | None = None
    reason: str = ""
    metrics: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)
    seconds: float | None = None
    """From the run's start to its end, as the store has it."""


StageDone = Callable[[declaration.Stage, list[Entry], dict | None], list[Entry]]
"""(stage, its entries, what `best_of` decided) → the entries once the stage is carried out."""


class Status:
    """The rows of a study, each planned once.

    only_show: nothing is to be run, so that a row which cannot be checked on this machine is no error, but "unchecked".
    """

    def __init__(self, study: declaration.Study, folder: Folder, only_show: bool = False):
        self.study, self.folder, self.only_show = study, folder, only_show
        self.task = task_of(study.task)
        self.plans: dict[str, Planned] = {}
        self._sizes: dict[tuple, int] = {}
        self._store: NotHere | None = None
        """Why the store does not answer: it is not asked again."""

    def check(self) -> None:
        """Plan every row that may come, before any is run; UserError for the first that cannot be."""
        for stage in self.study.stages:
            for row in declaration.expand(self.study, stage, self.size):
                with contextlib.suppress(NotHere if self.only_show else ()):
                    self.plan(row)

    def size(self, task: str, data_dir: str | None, split: str) -> int:
        """How many examples a split of prepared data holds; 0 where it is not here, and rows are only shown."""
        asked = (task, data_dir, split)
        if asked not in self._sizes:
            try:
                self._sizes[asked] = size(*asked)
            except NotHere:
                if not self.only_show:
                    raise
                self._sizes[asked] = 0
        return self._sizes[asked]

    def plan(self, row: declaration.Row) -> Planned:
        """Settle and check a row; UserError names the file and the row, NotHere if it is this machine that stands against it."""
        from ..training import planning

        if row.name in self.plans:
            return self.plans[row.name]
        try:
            args = dataclasses.replace(row.args, model_checkpoint=checkpoint(row.args.model_checkpoint))
            planned = planning.plan(row.technique, args)
        except UserError as error:
            raise type(error)(f"{self.study.file}, row {row.name}: {error}") from error
        output_dir = self.folder.checkpoints(f"{row.technique.key}-{planned.key[:12]}")
        # What `auto` became is what the row is to train.
        args = dataclasses.replace(
            planned.args, model_checkpoint=planned.checkpoint.name, output_dir=str(output_dir)
        )
        amount = outcomes.amount(row, len(planned.splits["train"]))
        return self.plans.setdefault(row.name, Planned(args, planned.key, amount))

    def look(self, row: declaration.Row) -> Entry:
        """What has become of one row."""
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

    def _look(self, row: declaration.Row, planned: Planned) -> Entry:
        if run_id := runs.finished_run(planned.args.experiment_name, planned.key):
            held = runs.recorded(run_id)
            return Entry(
                row, "finished", run_id, metrics=held["metrics"], tags=held["tags"], seconds=held["seconds"]
            )
        noted = self.folder.state["rows"].get(planned.key, {})
        if noted.get("status") in ("failed", "stopped"):
            return Entry(row, noted["status"], reason=noted["reason"])
        return Entry(row, "pending")

    def proposed(self, stage: declaration.Stage) -> dict[str, list[dict]]:
        """Technique key → the points that the stage's search has proposed so far, as the study's notes have them."""
        noted = self.folder.state.get("proposed", {}).get(stage.name, {})
        return {
            key: [point for point in noted.get(key, []) if search.within(point, spaces)]
            for key, spaces in stage.searches.items()
            if spaces
        }

    def row(self, stage: declaration.Stage, key: str, point: dict, best: dict | None) -> declaration.Row:
        """The row of a point of a technique's search."""
        rows = declaration.expand(self.study, stage, self.size, best, {key: [point]})
        return next(row for row in rows if row.technique.key == key)

    def propose(self, stage: declaration.Stage, key: str, point: dict, best: dict | None) -> declaration.Row:
        """The row of a point that a search proposes, once it is planned and noted; UserError if it cannot be trained."""
        row = self.row(stage, key, point, best)
        self.plan(row)
        noted = self.folder.state.setdefault("proposed", {}).setdefault(stage.name, {})
        noted.setdefault(key, []).append(point)
        self.folder.save()
        return row

    def trials_left(self, stage: declaration.Stage, best: dict | None) -> dict[str, int]:
        """Technique key → how many points its search may still propose; a space of few points has no more than it has."""
        swept = self.study.stage(stage.best_of).fields if stage.best_of else {}
        return {
            key: max(0, int(min(stage.trials, search.count(stage.searches[key]))) - len(points))
            for key, points in self.proposed(stage).items()
            if best is None or key in best or key not in swept
        }

    def survey(self, stage_done: StageDone = lambda stage, found, best: found) -> list[Entry]:
        """What has become of every row; stage_done may carry out a stage before the next one is decided."""
        found: dict[str, list[Entry]] = {}
        for stage in self.study.stages:
            below = found.get(stage.best_of, [])
            if any(entry.status in ("pending", "undecided", "unchecked") for entry in below):
                # As many rows as there will be, with values that stand for those to be decided.
                swept = self.study.stage(stage.best_of)
                assumed = {key: swept.candidates(key)[0] for key in swept.fields}
                rows = declaration.expand(self.study, stage, self.size, assumed)
                found[stage.name] = [Entry(row, "undecided") for row in rows]
                continue
            best = None
            if stage.best_of:
                best = outcomes.best_points([entry.row for entry in below], self.scores(below))
            found[stage.name] = stage_done(stage, self.entries(stage, best), best)
        return [entry for entries in found.values() for entry in entries]

    def entries(self, stage: declaration.Stage, best: dict | None) -> list[Entry]:
        """What has become of the rows of a stage that is decided, and a row for each trial that is yet to be proposed."""
        rows = declaration.expand(self.study, stage, self.size, best, self.proposed(stage))
        found = [self.look(row) for row in rows]
        left = self.trials_left(stage, best)
        for row in declaration.expand(self.study, stage, self.size, best):
            key = row.technique.key
            count = left.pop(key, 0)
            for i in range(count):
                trial = f"(trial {stage.trials - count + i + 1} of {stage.trials})"
                name = "-".join(
                    [stage.name] * (len(self.study.stages) > 1) + [key, trial, f"seed={row.args.seed}"]
                )
                found.append(Entry(dataclasses.replace(row, name=name), "undecided"))
        return found

    def scores(self, entries: Sequence[Entry]) -> dict[str, float | None]:
        """Row name → the validation score that decides."""
        return {entry.row.name: entry.metrics.get(f"best_validation_{self.task.metric}") for entry in entries}

    def seconds_left(
        self, entries: Sequence[Entry], passed: Mapping[str, float] | None = None
    ) -> float | None:
        """What the rows that are left will take, whole and one after another; None where nothing was measured.

        passed: row name → seconds that it has run for already.
        """
        finished = [entry for entry in entries if entry.status == "finished"]
        noted = {entry.row.name: self.seconds(entry.row) for entry in finished}
        measured = any(seconds is not None for seconds in noted.values())
        costs = [
            outcomes.Cost(
                self._work(entry.row),
                entry.metrics.get("training_seconds", 0.0),
                # The store's begins when the imports are done, and counts the time for which a run lay still.
                noted[entry.row.name] if measured else entry.seconds,
            )
            for entry in finished
        ]
        waiting = [entry.row for entry in entries if entry.status in ("pending", "undecided")]
        return outcomes.estimate(
            costs, [self._work(row, (passed or {}).get(row.name, 0.0)) for row in waiting]
        )

    def seconds(self, row: declaration.Row) -> float | None:
        """What the study has noted that a row took, whole."""
        return self.folder.state.get("seconds", {}).get(self.plan(row).key)

    def _work(self, row: declaration.Row, passed: float = 0.0) -> outcomes.Work:
        planned = self.plan(row)
        return outcomes.Work(row.technique.key, planned.args.model_checkpoint, planned.amount, passed)


def size(task: str, data_dir: str | None, split: str) -> int:
    """How many examples a split of prepared data holds."""
    from ..data.ensure import ensure

    folder = settled(RunArgs(task=task, data_dir=data_dir)).data_dir
    return len(ensure(Path(folder), task_of(task).data)[0][split])


def checkpoint(name: str) -> str:
    """A checkpoint's name; an untrained small model is made when it is named."""
    return str(make(name, ROOT / "mlruns" / "untrained")) if name.startswith(PREFIX) else name
