"""Successive halving over techniques on a user's data: each rung is a study, so that no finished row is trained again."""

import dataclasses
import hashlib
import json
import math
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..counts import count_of
from ..durations import clock
from ..errors import UserError
from ..files import write_json
from ..models.base import load_config
from ..models.families import family_of
from ..paths import command
from ..tasks.table import refusal, task_of
from ..training import fingerprint
from ..training.planning import resolve_checkpoint, with_rate
from ..training.settings import RunArgs, Technique
from . import advice, backends, halving, launch, leaderboard, outcomes, row_starter
from .declaration import Study, parse
from .status import Entry, Status, checkpoint, size

STATE = "advice.json"

BASE = {"max_validation_samples": 1000, "max_test_samples": 10, "experiment_name": "advice"}
"""Fields of every run that the user does not set: the test split decides nothing and stays as good as unseen, so the runs are
kept apart from those that `compare.py` and `register_best.py` choose among."""

OWN_FLAGS = {
    "task": "--task",
    "data_dir": "--data_dir",
    "model_checkpoint": "--model_checkpoint",
    "seed": "--seed",
    "max_train_samples": "",
    "learning_rate": "",
}
"""Fields that the advisor decides, and the flag that sets them, if there is one."""

Measure = Callable[[str], tuple[float | None, float | None]]
"""Run id → (median latency of one request in ms, MiB of the whole model that is served)."""


@dataclass(frozen=True)
class Wishes:
    """What the user asks for."""

    data_dir: str
    techniques: tuple[str, ...]
    """Keys, in the order of the rows."""
    named: bool = False
    """The user has named them; else they are all that there are, and those that do not fit the model are left out."""
    task: str = RunArgs.task
    model_checkpoint: str = RunArgs.model_checkpoint
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every run."""
    fields_file: str = ""
    """Where they come from."""
    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    budget_minutes: float | None = None
    smallest_difference: float = 1.0
    seed: int = RunArgs.seed


@dataclass(frozen=True)
class Found:
    """What a halving has found: the advice, what it costs, and what its sentences need."""

    made: advice.Advice
    costs: dict[str, advice.Cost]
    setting: advice.Setting
    seconds: list[float]
    """Training of each rung."""
    folder: Path


class Advisor:
    """Runs the rungs. What it decides by times is noted in its folder, so that a second start decides the same."""

    def __init__(
        self,
        wishes: Wishes,
        techniques: Mapping[str, type[Technique]],
        scripts: Mapping[str, Path],
        output_dir: Path,
        measure: Measure,
        data: str,
        backend: str = backends.LOCAL,
        address: str | None = None,
        retry_failed: bool = False,
        starter: row_starter.Starter | None = None,
    ):
        """techniques, scripts: key → class and script of all that there are. output_dir: where its folder is made. data: its
        fingerprint. retry_failed: train failed runs again, and decide again who goes on. starter: of all rungs."""
        self.wishes, self.kinds, self.scripts, self.measure = wishes, techniques, scripts, measure
        for name in sorted(OWN_FLAGS.keys() & wishes.fields.keys()):
            remedy = f"use {OWN_FLAGS[name]}" if OWN_FLAGS[name] else "it is varied"
            raise UserError(f"{wishes.fields_file} sets {name}: take it out, {remedy}.")
        self.backend, self.address, self.retry_failed, self.starter = backend, address, retry_failed, starter
        self.task = task_of(wishes.task)
        self.total = size(wishes.task, wishes.data_dir, "train")
        base = resolve_checkpoint(checkpoint(wishes.model_checkpoint))
        self.config, self.excluded = load_config(base), dict[str, str]()
        self.chosen = self._fitting()
        self.name = f"advice-{self._digest(data, fingerprint.checkpoint(base))}"
        self.folder = output_dir / self.name
        self.state: dict[str, Any] = {"rungs": [], "measured": {}}
        if (self.folder / STATE).is_file():
            self.state |= json.loads((self.folder / STATE).read_text(encoding="utf-8"))
        if retry_failed:
            # A technique that failed before may do well now.
            del self.state["rungs"][1:]
        self.costs: dict[str | None, outcomes.Cost] = {}
        """Run id → what it took."""
        self.notes: list[str] = []

    def run(self) -> Found:
        """Train the rungs and advise; UserError if nothing is left to choose from."""
        print(f"{self.name}: {count_of(len(self.chosen), 'techniques')}, {self.total:,} examples", flush=True)
        rungs: list[list[advice.Tried]] = []
        seconds: list[float] = []
        entries: dict[str, Entry] = {}
        amounts = halving.amounts(self.total)
        while len(rungs) < len(amounts):
            rung = self._rung(len(rungs), amounts, rungs)
            if rung is None:
                break
            status, of_rung = self._train(len(rungs) + 1, rung)
            found = self._tried(status, of_rung)
            entries |= {tried.technique: entry for tried, entry in found}
            seconds.append(sum(cost.whole or cost.training for cost in status.costs(of_rung)))
            if not rungs:
                self._leave_out(set(self.chosen) - rung.rates.keys())
                found = self._within_bounds(found)
            rungs.append([tried for tried, _ in found])
        finalists = {tried.technique for tried in rungs[-1]}
        costs = {
            name: self._cost(entry, measure=name in finalists)
            for name, entry in entries.items()
            if name not in self.excluded
        }
        made = advice.advise(rungs, costs, self.wishes.smallest_difference)
        rates = halving.Rung(**self.state["rungs"][0]).rates[self._key(made.take)]
        self.notes += advice.edge_notes(made.tried(made.take), rates)
        setting = advice.Setting(
            self.task.metric,
            self.task.unit,
            self.wishes.smallest_difference,
            self.total,
            self._command(made),
            self.excluded,
            self.notes,
        )
        return Found(made, costs, setting, seconds, self.folder)

    def _command(self, made: advice.Advice) -> str:
        """The command line that trains the technique to take on all of the data."""
        wishes, key, flags = self.wishes, self._key(made.take), ["--data_dir", self.wishes.data_dir]
        for name in ("task", "model_checkpoint", "seed"):
            if (value := getattr(wishes, name)) != getattr(RunArgs, name):
                flags += [f"--{name}", str(value)]
        flags += ["--config", wishes.fields_file] if wishes.fields else []
        flags += ["--learning_rate", f"{made.tried(made.take).learning_rate:g}"]
        return f"{command(self.scripts[key].name)} {shlex.join(flags)}"

    def _key(self, name: str) -> str:
        return next(key for key in self.chosen if self.kinds[key].name == name)

    def _fitting(self) -> list[str]:
        """The techniques that work with the model; UserError for one that the user has named and that does not."""
        family = family_of(self.config.model_type)
        fitting = []
        for key in self.wishes.techniques:
            reason = refusal(family, key, self.task)
            if reason and self.wishes.named:
                raise UserError(
                    f"--techniques {key} does not work with {family.model_type} for {self.task.name}: {reason}."
                )
            if reason:
                self.excluded[self.kinds[key].name] = reason
            else:
                fitting.append(key)
        if not fitting:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.excluded.items())
            raise UserError(f"No technique works with {family.model_type} for {self.task.name}: {reasons}.")
        return fitting

    def _digest(self, data: str, base: str) -> str:
        """Of everything that decides who goes on, so that no notes about other runs decide. data, base: fingerprints."""
        held = dataclasses.asdict(self.wishes) | {"data": data, "base": base, "code": fingerprint.code()}
        del held["data_dir"], held["smallest_difference"], held["fields_file"]
        return hashlib.sha256(json.dumps(held, sort_keys=True, default=str).encode()).hexdigest()[:10]

    # Rungs.

    def _rung(
        self, number: int, amounts: Sequence[int], before: Sequence[Sequence[advice.Tried]]
    ) -> halving.Rung | None:
        """The rung of this number, from 0; None if the budget ends before it. Decided once, then read from the notes."""
        noted = self.state["rungs"]
        if number >= len(noted):
            decided = (
                self._first(amounts[0])
                if number == 0
                else self._next(amounts[number], before[-1], before[-1][0].examples)
            )
            noted.append(dataclasses.asdict(decided) if decided else None)
            self._save()
        if noted[number] is None:
            self.notes.append(
                f"The budget of {self.wishes.budget_minutes:g} minutes ended after {number} of {len(amounts)} rungs: with "
                "more time, the techniques of the last one would be compared on more data."
            )
            return None
        return halving.Rung(**noted[number])

    def _usual_rate(self, key: str) -> float:
        """A technique's learning rate for a model of this size."""
        rate = with_rate(self.kinds[key](), self.config)[0].learning_rate
        assert rate is not None
        return rate

    def _first(self, examples: int) -> halving.Rung:
        usual = {key: self._usual_rate(key) for key in self.chosen}
        rates = {key: halving.rates(rate) for key, rate in usual.items()}
        if self.wishes.budget_minutes is None:
            return halving.Rung(examples, rates)
        # One row shows how long the others will take; it is one of them.
        defaults = {key: halving.rates(rate, [1.0]) for key, rate in usual.items()}
        likely = leaderboard.ordered(self.chosen)
        probe = halving.Rung(examples, {likely[0]: defaults[likely[0]]})
        status, entries = self._train(0, probe)
        if not self.costs:
            reason = next((entry.reason for entry in entries if entry.reason), "it left no run")
            raise UserError(f"{entries[0].row.name} failed: {reason}.")
        for each in (rates, defaults):
            seconds = self._estimate(1, halving.Rung(examples, each))
            needed = sum(seconds.values())
            # Half of the time is for the rungs with more data.
            if needed <= self._left / 2:
                return halving.Rung(examples, each)
        if needed <= self._left:
            return halving.Rung(examples, defaults)
        many = halving.affordable([seconds[key] for key in likely], self._left / 2)
        if many >= halving.FINALISTS and not self.wishes.named:
            return halving.Rung(examples, {key: defaults[key] for key in likely[:many]})
        raise UserError(
            f"--budget_minutes {self.wishes.budget_minutes:g}: training {count_of(len(self.chosen), 'techniques')} on "
            f"{examples:,} examples each takes about {clock(needed)} on this machine; raise it, or name fewer --techniques."
        )

    def _next(self, examples: int, tried: Sequence[advice.Tried], before: int) -> halving.Rung | None:
        order = halving.ranked({each.technique: each.score for each in tried})
        kept = order[: halving.keeps(len(order))]
        best = {each.technique: each.learning_rate for each in tried}
        rates = {self._key(name): [best[name]] for name in kept}
        if self.wishes.budget_minutes is None:
            return halving.Rung(examples, rates)
        seconds = list(self._estimate(len(self.state["rungs"]) + 1, halving.Rung(examples, rates)).values())
        least = min(halving.FINALISTS, len(kept))
        many = halving.affordable(seconds, self._left)
        if many >= least:
            return halving.Rung(examples, dict(list(rates.items())[:many]))
        fewer = halving.smaller(examples, seconds[:least], self._left, before)
        return None if fewer is None else halving.Rung(fewer, dict(list(rates.items())[:least]))

    @property
    def _left(self) -> float:
        """Seconds of the budget that are left."""
        spent = sum(cost.whole or cost.training for cost in self.costs.values())
        return 60 * (self.wishes.budget_minutes or math.inf) - spent

    def _estimate(self, number: int, rung: halving.Rung) -> dict[str, float]:
        """Technique → seconds that its rows will take."""
        status, entries = launch.survey(self._study(number, rung), self.folder)
        found: dict[str, float] = {}
        for entry in entries:
            needed = (
                0.0
                if entry.status == "finished"
                else outcomes.estimate(list(self.costs.values()), [status.work(entry.row)]) or 0.0
            )
            found[entry.row.entry] = found.get(entry.row.entry, 0.0) + needed
        return found

    def _study(self, number: int, rung: halving.Rung) -> Study:
        """The study of a rung, whose file lies in the folder."""
        wishes = self.wishes
        base = {**BASE, **wishes.fields, "task": wishes.task, "data_dir": wishes.data_dir}
        base |= {"model_checkpoint": wishes.model_checkpoint, "max_train_samples": rung.examples}
        content = {
            "name": f"{self.name}-rung{number}",
            "description": f"Rung {number} of {self.name}: {rung.examples:,} training examples.",
            "base": base,
            "techniques": {key: {"grid": {"learning_rate": rates}} for key, rates in rung.rates.items()},
            "seeds": [wishes.seed],
        }
        if wishes.fields:
            # So that its faults are named with its own place.
            parse(content, wishes.fields_file, self.kinds)
        file = self.folder / f"rung{number}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return parse(content, str(file), self.kinds)

    def _train(self, number: int, rung: halving.Rung) -> tuple[Status, list[Entry]]:
        study = self._study(number, rung)
        backends.check(study, self.backend, self.address)
        first = "One run first, to see how long the others will take"
        about = f"Rung {number}: {count_of(sum(map(len, rung.rates.values())), 'runs')}" if number else first
        print(f"\n{about}, {rung.examples:,} training examples each", flush=True)
        how = (self.backend, self.address, self.retry_failed, self.starter)
        launch.run(study, self.folder, self.scripts, *how)
        status, entries = launch.survey(study, self.folder)
        finished = [entry.run_id for entry in entries if entry.status == "finished"]
        for run_id, cost in zip(finished, status.costs(entries), strict=True):
            self.costs.setdefault(run_id, cost)
        return status, entries

    def _leave_out(self, keys: Collection[str]) -> None:
        reason = f"left out to keep to {self.wishes.budget_minutes or 0:g} minutes; behind the others on SQuAD (docs/CHOOSING.md)"
        self.excluded |= {self.kinds[key].name: reason for key in self.chosen if key in keys}

    # What the rungs have shown.

    def _tried(self, status: Status, entries: Sequence[Entry]) -> list[tuple[advice.Tried, Entry]]:
        """The techniques of a rung, each at its best rate; those without a score are excluded with the reason."""
        scores = status.scores(entries)
        best = outcomes.best_points([entry.row for entry in entries], scores)
        found = []
        for key in dict.fromkeys(entry.row.entry for entry in entries):
            mine = [entry for entry in entries if entry.row.entry == key]
            if key not in best:
                self.excluded[mine[0].row.title] = next(
                    (f"its runs failed: {entry.reason}" for entry in mine if entry.reason), "it left no score"
                )
                continue
            entry = next(entry for entry in mine if entry.row.point == best[key])
            file = status.folder.row(entry.row.name) / "predictions" / "validation_scores.json"
            each = json.loads(file.read_text(encoding="utf-8"))
            score = scores[entry.row.name]
            rate = entry.row.technique.learning_rate
            assert score is not None and rate is not None
            tried = advice.Tried(
                entry.row.title,
                rate,
                min(entry.row.args.max_train_samples or self.total, self.total),
                score,
                {name: values[self.task.metric] for name, values in each.items()},
            )
            found.append((tried, entry))
        if not found:
            raise UserError(
                f"Every run failed (--retry_failed runs them again); see {status.folder.path / 'logs'}: "
                + "; ".join(f"{name}: {reason}" for name, reason in self.excluded.items())
            )
        return sorted(found, key=lambda pair: -pair[0].score)

    def _within_bounds(self, found: list[tuple[advice.Tried, Entry]]) -> list[tuple[advice.Tried, Entry]]:
        """Those of the first rung that are fast and small enough; UserError if none is."""
        wishes, kept = self.wishes, []
        for tried, entry in found:
            bounds = (wishes.max_latency_ms, wishes.max_size_mb)
            cost = self._cost(entry, measure=any(bound is not None for bound in bounds))
            if reason := advice.too_costly(cost, wishes.max_latency_ms, wishes.max_size_mb):
                self.excluded[tried.technique] = reason
            else:
                kept.append((tried, entry))
        if not kept:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.excluded.items())
            raise UserError(f"No technique is within the bounds: {reasons}. Raise the bound.")
        return kept

    def _cost(self, entry: Entry, measure: bool) -> advice.Cost:
        """What a technique costs, by one of its runs. measure: also what must be measured on its stored model, once."""
        run_id, noted = str(entry.run_id), self.state["measured"]
        latency, whole = noted.get(entry.row.entry, (None, None))
        if measure and latency is None:
            print(f"Measuring one request at a time: {entry.row.title}", flush=True)
            latency, whole = noted[entry.row.entry] = self.measure(run_id)
            self._save()
        metrics = entry.metrics
        return advice.Cost(
            latency,
            metrics.get("adapter_mib"),
            whole,
            metrics.get("trainable_parameters"),
            metrics.get("training_seconds"),
        )

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / STATE, self.state)
