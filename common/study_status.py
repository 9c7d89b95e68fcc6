"""What has become of each row of a study, by the store and the study's own notes."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import outcomes, studies, tracking
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
    """What has become of a row: "finished", "failed", "pending", or "undecided" while an earlier stage goes on."""

    row: studies.Row
    status: str
    run_id: str | None = None
    reason: str = ""
    metrics: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)


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
        from . import training

        if row.name in self.plans:
            return self.plans[row.name]
        try:
            args = dataclasses.replace(row.args, model_checkpoint=checkpoint(row.args.model_checkpoint))
            planned = training.plan(row.technique, args)
            row.technique.peft_config(planned.family)
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
        if noted.get("status") == "failed":
            return Entry(row, "failed", reason=noted["reason"])
        return Entry(row, "pending")

    def survey(self, stage_done: Callable[[list[Entry]], list[Entry]] = lambda found: found) -> list[Entry]:
        """What has become of every row; stage_done may carry out a stage before the next one is decided."""
        found: dict[str, list[Entry]] = {}
        for stage in self.study.stages:
            below = found.get(stage.best_of, [])
            if any(entry.status in ("pending", "undecided") for entry in below):
                # As many rows as there will be, with values that stand for those to be decided.
                swept = self.study.stage(stage.best_of).grids
                assumed = {key: studies.points(grid)[0] for key, grid in swept.items()}
                rows = studies.expand(self.study, stage, size, assumed)
                found[stage.name] = [Entry(row, "undecided") for row in rows]
                continue
            best = None
            if stage.best_of:
                best = outcomes.best_points([entry.row for entry in below], self.scores(below))
            rows = studies.expand(self.study, stage, size, best)
            found[stage.name] = stage_done([self.look(row) for row in rows])
        return [entry for entries in found.values() for entry in entries]

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
