"""What has become of each row of a study, by the store and the study's own notes."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import outcomes, search, studies, tracking
from .config import RunArgs, settled
from .errors import UserError
from .paths import ROOT
from .study_folder import Folder
from .tasks import task_of
from .untrained import PREFIX, make


@dataclass(frozen=True)
class Planned:
    """A row that is known to be possible."""

    args: RunArgs
    key: str
    amount: float
    """Epochs × training examples."""


@dataclass(frozen=True)
class Entry:
    """What has become of a row: "finished", "failed", "stopped" (by a scheduler, as one of the bad ones), "pending", or
    "undecided" while an earlier stage or the search for it goes on."""

    row: studies.Row
    status: str
    run_id: str | None = None
    reason: str = ""
    metrics: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)


StageDone = Callable[[studies.Stage, list[Entry], dict | None], list[Entry]]
"""(stage, its entries, what `best_of` decided) → the entries once the stage is carried out."""


class Status:
    """The rows of a study, each planned once."""

    def __init__(self, study: studies.Study, folder: Folder):
        self.study, self.folder = study, folder
        self.task = task_of(study.task)
        self.plans: dict[str, Planned] = {}

    def check(self) -> None:
        """Plan every row that may come, before any is run; UserError for the first that cannot be."""
        for stage in self.study.stages:
            for row in studies.expand(self.study, stage, size):
                self.plan(row)

    def plan(self, row: studies.Row) -> Planned:
        """Settle and check a row; UserError names the file and the row."""
        from . import planning

        if row.name in self.plans:
            return self.plans[row.name]
        try:
            args = dataclasses.replace(row.args, model_checkpoint=checkpoint(row.args.model_checkpoint))
            planned = planning.plan(row.technique, args)
        except UserError as error:
            raise UserError(f"{self.study.file}, row {row.name}: {error}") from None
        output_dir = self.folder.checkpoints(f"{row.technique.key}-{planned.key[:12]}")
        # What `auto` became is what the row is to train.
        args = dataclasses.replace(
            planned.args, model_checkpoint=planned.checkpoint.name, output_dir=str(output_dir)
        )
        amount = outcomes.amount(row, len(planned.splits["train"]))
        return self.plans.setdefault(row.name, Planned(args, planned.key, amount))

    def look(self, row: studies.Row) -> Entry:
        """What has become of one row."""
        planned = self.plan(row)
        if run_id := tracking.finished_run(planned.args.experiment_name, planned.key):
            told = tracking.told(run_id)
            return Entry(row, "finished", run_id, metrics=told["metrics"], tags=told["tags"])
        noted = self.folder.state["rows"].get(planned.key, {})
        if noted.get("status") in ("failed", "stopped"):
            return Entry(row, noted["status"], reason=noted["reason"])
        return Entry(row, "pending")

    def proposed(self, stage: studies.Stage) -> dict[str, list[dict]]:
        """Technique key → the points that the stage's search has proposed so far, as the study's notes have them."""
        noted = self.folder.state.get("proposed", {}).get(stage.name, {})
        return {
            key: [point for point in noted.get(key, []) if search.within(point, spaces)]
            for key, spaces in stage.searches.items()
            if spaces
        }

    def row(self, stage: studies.Stage, key: str, point: dict, best: dict | None) -> studies.Row:
        """The row of a point of a technique's search."""
        rows = studies.expand(self.study, stage, size, best, {key: [point]})
        return next(row for row in rows if row.technique.key == key)

    def propose(self, stage: studies.Stage, key: str, point: dict, best: dict | None) -> studies.Row:
        """The row of a point that a search proposes, once it is planned and noted; UserError if it cannot be trained."""
        row = self.row(stage, key, point, best)
        self.plan(row)
        noted = self.folder.state.setdefault("proposed", {}).setdefault(stage.name, {})
        noted.setdefault(key, []).append(point)
        self.folder.save()
        return row

    def trials_left(self, stage: studies.Stage, best: dict | None) -> dict[str, int]:
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
            if any(entry.status in ("pending", "undecided") for entry in below):
                # As many rows as there will be, with values that stand for those to be decided.
                swept = self.study.stage(stage.best_of)
                assumed = {key: swept.candidates(key)[0] for key in swept.fields}
                rows = studies.expand(self.study, stage, size, assumed)
                found[stage.name] = [Entry(row, "undecided") for row in rows]
                continue
            best = None
            if stage.best_of:
                best = outcomes.best_points([entry.row for entry in below], self.scores(below))
            found[stage.name] = stage_done(stage, self.entries(stage, best), best)
        return [entry for entries in found.values() for entry in entries]

    def entries(self, stage: studies.Stage, best: dict | None) -> list[Entry]:
        """What has become of the rows of a stage that is decided, and a row for each trial that is yet to be proposed."""
        rows = studies.expand(self.study, stage, size, best, self.proposed(stage))
        found = [self.look(row) for row in rows]
        left = self.trials_left(stage, best)
        for row in studies.expand(self.study, stage, size, best):
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

    def seconds_left(self, entries: Sequence[Entry]) -> float | None:
        """What the rows that are left will train for; None where nothing was measured."""
        finished = [
            (e.row.technique.key, self.plan(e.row).amount, e.metrics.get("training_seconds", 0.0))
            for e in entries
            if e.status == "finished"
        ]
        waiting = [e.row for e in entries if e.status in ("pending", "undecided")]
        return outcomes.estimate(finished, [(row.technique.key, self.plan(row).amount) for row in waiting])


@functools.cache
def size(task: str, data_dir: str | None, split: str) -> int:
    """How many examples a split of prepared data holds."""
    from . import data

    folder = settled(RunArgs(task=task, data_dir=data_dir)).data_dir
    return len(data.ensure(Path(folder), task_of(task).data)[0][split])


def checkpoint(name: str) -> str:
    """A checkpoint's name; an untrained small model is made when it is named."""
    return str(make(name, ROOT / "mlruns" / "untrained")) if name.startswith(PREFIX) else name
