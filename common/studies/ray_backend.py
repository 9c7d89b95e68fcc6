"""Trains rows and runs searches of a study with Ray Tune: the cluster, what is trained next, what is stopped early.

Needs requirements-ray.txt; only `--backend ray` imports this.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# First, because it says how Ray is to be imported.
from ..tracking import ray_cluster

# Read while Ray Tune is imported, and by the processes that it starts.
# A study continues from its own notes, and handles Ctrl-C itself.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# Its newer output prints tables even with verbose=0.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# A row's last result has no score: it holds how the process ended.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")

import optuna
import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from ..errors import UserError, last_line
from .declaration import Point, Row, Stage
from .ray_trial import EPOCH, SCORE, Job, RowTrial
from .search import Asha, Resources, Space, every_point

DEATHS = 3
"""How often a row's worker may die before the row counts as failed: the row itself is the likely cause, by its memory."""
DRAWS = 20
"""How often a search draws again after a point that was proposed before."""


@dataclass
class Search:
    """The search of one technique in one stage."""

    spaces: Mapping[str, Space]
    left: int
    """How many points it may still propose."""
    known: list[tuple[Point, float | None]]
    """The points so far and their validation scores."""
    seed: int
    propose: Callable[[Point], Row]
    """A point → its row; UserError if it cannot be trained."""


@dataclass(frozen=True)
class Hooks:
    """What the study does at the start and the end of a row, in the study's process."""

    job: Callable[[Row], Job]
    """Prepares a row; what RowTrial runs."""
    started: Callable[[Row, bool], None]
    """(row, whether it continues after its worker died)"""
    ended: Callable[[Row, int | None, str], float | None]
    """(row, exit code, why it failed) → its validation score"""
    stopped: Callable[[Row, float, float], None]
    """(row, epoch, validation score): the scheduler has stopped it"""


@contextlib.contextmanager
def connected(address: str | None, store: str, asked: Sequence[Resources]) -> Iterator[None]:
    """A Ray cluster for a study (`ray_cluster.connected`). store: URI of the MLflow store, which the rows get.

    UserError if there is no such cluster, none of its machines has the resources of a trial, or they could not share the store.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with ray_cluster.connected(address, store):
        _check(asked)
        ray_cluster.check_store(store)
        yield


def _check(asked: Sequence[Resources]) -> None:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    for resources in asked:
        if not any(
            node["Resources"].get("CPU", 0) >= resources.cpus
            and node["Resources"].get("GPU", 0) >= resources.gpus
            for node in nodes
        ):
            raise UserError(
                f"Each trial asks for {resources.cpus} CPUs and {resources.gpus:g} GPUs, and no machine of this cluster has "
                "them: lower `resources` in the study's file, or add a machine that has them."
            )


def carry_out(
    stage: Stage, waiting: Sequence[Row], searches: Sequence[Search], hooks: Hooks, scratch: Path
) -> None:
    """Train the rows that wait and those that the searches propose, as many at a time as the cluster has room for.

    scratch: a folder for Ray's own notes, which are not read again.
    """
    next_rows = Next(waiting, searches, hooks)
    resources = {"cpu": stage.resources.cpus, "gpu": stage.resources.gpus}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tune.Tuner(
            tune.with_resources(RowTrial, resources),
            tune_config=tune.TuneConfig(
                search_alg=next_rows,
                scheduler=PerTechnique(stage.scheduler) if stage.scheduler else None,
                num_samples=len(waiting) + sum(search.left for search in searches),
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
                reuse_actors=False,
            ),
            run_config=tune.RunConfig(
                name=stage.name,
                storage_path=str(scratch),
                callbacks=[Listener(next_rows, hooks)],
                failure_config=tune.FailureConfig(max_failures=DEATHS),
                # A row's checkpoints are its script's own.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()


class Next(Searcher):
    """What is trained next: the rows that wait, then what the searches propose, the one with most left first."""

    def __init__(self, waiting: Sequence[Row], searches: Sequence[Search], hooks: Hooks):
        super().__init__(metric=SCORE, mode="max")
        self.waiting, self.hooks = list(waiting), hooks
        self.proposers = [Proposer(search) for search in searches]
        self.rows: dict[str, tuple[Row, Proposer | None]] = {}
        """Trial id → its row, and the search that proposed it."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if not (found := self._next(trial_id)):
            return Searcher.FINISHED
        row, _ = self.rows[trial_id] = found
        return {"job": self.hooks.job(row), "technique": row.entry}

    def _next(self, trial_id: str) -> tuple[Row, "Proposer | None"] | None:
        if self.waiting:
            return self.waiting.pop(0), None
        while proposer := max(self.proposers, key=lambda each: each.search.left, default=None):
            if not proposer.search.left:
                break
            if row := proposer.row(trial_id):
                return row, proposer
        return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The Listener reports it, because it knows why."""

    def save(self, checkpoint_path: str) -> None:
        """A study continues from its own notes."""


class Proposer:
    """Asks Optuna for points that were not proposed before."""

    def __init__(self, search: Search):
        self.search = search
        self.asked: dict[str, str] = {}
        """Trial id → Optuna's id of its point."""
        self.points = [point for point, _ in search.known]
        distributions = {axis: _distribution(space) for axis, space in search.spaces.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A search that continues must not start with the points with which it started.
            self.optuna = OptunaSearch(
                distributions, metric=SCORE, mode="max", seed=search.seed + len(search.known)
            )
            for point, score in search.known:
                if score is not None:
                    self.optuna.add_evaluated_point(point, score)

    def row(self, trial_id: str) -> Row | None:
        """The row of the next point; None, with nothing left, if there is no other."""
        for draw in range(DRAWS):
            asked = f"{trial_id}-{draw}"
            drawn = self.optuna.suggest(asked)
            point = {axis: space.settle(drawn[axis]) for axis, space in self.search.spaces.items()}
            if row := self._new(point):
                self.asked[trial_id] = asked
                return row
            self.optuna.on_trial_complete(asked, error=True)
        if all(space.all is not None for space in self.search.spaces.values()):
            for point in every_point(self.search.spaces):
                if row := self._new(point):
                    return row
        self.search.left = 0
        return None

    def _new(self, point: Point) -> Row | None:
        if point in self.points:
            return None
        self.points.append(point)
        try:
            row = self.search.propose(point)
        except UserError as error:
            print(f"Not tried: {error}", flush=True)
            return None
        self.search.left -= 1
        return row

    def report(self, trial_id: str, score: float | None) -> None:
        """Report the score of a point to Optuna; None: it failed."""
        if asked := self.asked.pop(trial_id, None):
            self.optuna.on_trial_complete(
                asked, None if score is None else {SCORE: score}, error=score is None
            )


def _distribution(space: Space) -> Any:
    if space.kind == "choice":
        return optuna.distributions.CategoricalDistribution(space.values)
    if space.kind == "int":
        return optuna.distributions.IntDistribution(*space.values)
    low, high = space.values
    return optuna.distributions.FloatDistribution(low, high, log=space.kind == "loguniform")


class Listener(tune.Callback):
    """Reports the start and end of each row to the study, and its score to Optuna."""

    def __init__(self, rows: Next, hooks: Hooks):
        self.rows, self.hooks = rows, hooks
        self.started: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        row, _ = self.rows.rows[trial.trial_id]
        self.hooks.started(row, trial.trial_id in self.started)
        self.started.add(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        row, proposer = self.rows.rows[trial.trial_id]
        result = trial.last_result
        if "code" in result:
            score = self.hooks.ended(row, result["code"], result["why"])
        else:
            score = result[SCORE]
            self.hooks.stopped(row, result[EPOCH], score)
        if proposer:
            proposer.report(trial.trial_id, score)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        row, proposer = self.rows.rows[trial.trial_id]
        last = last_line(str(trial.get_error()), "no reason was given")[:300]
        why = f"its worker died {DEATHS + 1} times: {last}"
        score = self.hooks.ended(row, None, why)
        if proposer:
            proposer.report(trial.trial_id, score)


class PerTechnique(FIFOScheduler):
    """ASHA among the trials of each technique: techniques learn at different paces, and the best of each is wanted."""

    def __init__(self, asha: Asha):
        super().__init__()
        self.asha = asha
        self.schedulers: dict[str, AsyncHyperBandScheduler] = {}
        """Technique key → its scheduler."""

    def _scheduler(self, trial: Any) -> AsyncHyperBandScheduler:
        key = trial.config["technique"]
        if key not in self.schedulers:
            self.schedulers[key] = AsyncHyperBandScheduler(
                time_attr=EPOCH,
                metric=SCORE,
                mode="max",
                max_t=10**6,
                grace_period=self.asha.grace_period,
                reduction_factor=self.asha.reduction_factor,
                stop_last_trials=False,
            )
        return self.schedulers[key]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._scheduler(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self._scheduler(trial).on_trial_result(tune_controller, trial, result)
