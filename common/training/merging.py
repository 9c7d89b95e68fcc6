"""`merge`: adapters of finished runs become one model, which is tested and logged as a run of its own."""

import hashlib
import json
import math
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from peft.utils import CONFIG_NAME

from ..errors import UserError
from ..models import bundles, trainable
from ..models import merging as models
from ..models.base import Checkpoint
from ..models.cpu_kernels import quicken
from ..models.merging import HOWS, How, Recipe
from ..paths import interpreter
from ..scoring.names import LABELS
from ..scratch import scratch
from ..tracking import experiments, store
from ..tracking.run_log import TrainingLog
from . import epochs, logged_run, recording, results
from .assessment import Assessment
from .fit import record
from .planning import Plan, plan
from .run_folder import own
from .settings import DATA, RunArgs, Technique, option, settled
from .stored_checkpoint import trained_bundle

ALIKE = {
    "technique": "the technique",
    "task": "the task",
    "labels": "the labels",
    "base_fingerprint": "the base",
}
"""Tag → what it says, of which all runs have the same."""


@dataclass(frozen=True)
class Merge(Technique):
    """What decides a merged model, in the place of a technique's hyper-parameters."""

    key = "merged"

    merge_method: How = option("linear", "how the updates become one", choices=HOWS)
    weights: str = option("", "of the models, in their order")
    density: float | None = option(None, "share of the values that pruning keeps", above=0, maximum=1)
    rank: int | None = option(None, "rank of the merged update", minimum=1, maximum=65536)
    merge_seed: int = option(0, "decides what DARE drops")
    sources: str = option("", "digests of the merged models' trained tensors")
    choices: int = option(1, "how many models validation could choose from", minimum=1)
    learning_rate: float = option(1.0, "unused: nothing is trained")


def kind_of(technique: str, count: int, how: str) -> type[Merge]:
    """The technique of a merge, named by what was merged: "LoRA, 3 merged (linear)"."""

    class Merged(Merge):
        name = f"{technique}, {count} merged ({how})"

    return Merged


@dataclass(frozen=True)
class Source:
    """A finished run whose model is merged."""

    run_id: str
    experiment: str
    tags: dict[str, str]
    metrics: dict[str, float]
    config: dict[str, Any]
    """Every setting, as the run has logged them."""
    bundle: Path
    """Its saved model with its base inside, verified."""

    @property
    def choices(self) -> int:
        """How many models validation chose from."""
        own = epochs.choices(self.config["num_train_epochs"], self.config.get("average_last"))
        return int(self.config.get("choices") or own)

    @property
    def digest(self) -> str:
        """Of its trained tensors."""
        trained = {k: v for k, v in bundles.hashes(self.bundle).items() if not k.startswith("bundle")}
        if f"adapter/{CONFIG_NAME}" in trained:
            trained = {k: v for k, v in trained.items() if k.startswith("adapter/")}
        return hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()


def merge(
    run_ids: Sequence[str],
    recipe: Recipe,
    *,
    data_dir: str | None = None,
    experiment_name: str | None = None,
    run_name: str | None = None,
    output_dir: str | None = None,
    skip_finished: bool = False,
) -> str:
    """Merge the models of finished runs, decide on validation, test once, log everything; returns the new run's id.

    The settings of the data are those of the first run. data_dir: its prepared data; default: what the first run was
    trained from. experiment_name: default: the first run's. UserError names the run that does not fit, and why.
    """
    recipe.check(len(run_ids))
    if len(set(run_ids)) < len(run_ids):
        raise UserError("A run is named twice: name each once, and use --weights.")
    store.configure()
    with scratch() as place:
        sources = [_source(id_, place / id_) for id_ in run_ids]
        _check_alike(sources)
        first = sources[0]
        recipe = recipe.fitting(models.Saved(first.run_id, first.bundle))
        args = replace(
            _settings_of(first, data_dir),
            experiment_name=experiment_name or first.experiment,
            run_name=run_name,
            output_dir=output_dir,
            skip_finished=skip_finished,
        )
        _check_data(str(settled(args).data_dir), sources, named=data_dir is not None)
        planned = plan(
            _technique(sources, recipe),
            args,
            Checkpoint(first.tags["checkpoint"], str(first.bundle / "base")),
        )
        if skip_finished and (done := planned.finished):
            print(f"{planned.technique.name}: run {done} already holds this result; nothing to do.")
            return done
        models.combine([models.Saved(s.run_id, s.bundle) for s in sources], recipe, place / "merged")
        shutil.copy(first.bundle / bundles.BUNDLE, place / "merged")
        with own(planned.output_dir, planned.key, False, recording.abandon) as state:
            job = MergeJob(planned, planned.output_dir / "scratch", sources, place / "merged")
            return record(job, state, shlex.join([interpreter(), *sys.argv]))


class MergeJob(Assessment):
    """A plan whose model is merged from others, then assessed. merged: a saved model without its base."""

    def __init__(self, planned: Plan, scratch: Path, sources: Sequence[Source], merged: Path):
        super().__init__(planned, scratch)
        self.sources, self.merged = sources, merged
        self.choices = math.prod(source.choices for source in sources)
        self.tags = {"merged_from": ",".join(source.run_id for source in sources)}

    def carry_out(self, log: TrainingLog) -> None:
        """Load, split, test, report."""
        self.log_settings(log, self.untrained_settings() | self.tags)
        base = self.sources[0].bundle / "base"
        adapted = (self.merged / "adapter").is_dir()
        model, tokenizer, info = bundles.load_bundle(self.merged, base)
        model = quicken(model).to(self.arguments.device)
        judged = self.judged_by(tokenizer, model.config)
        same_data = all(s.tags["data_fingerprint"] == self.record.fingerprint for s in self.sources)
        if same_data:
            log.log_data(self.record.to_json(), "training")
        log.log_data(self.record.to_json(), "testing")
        counts = trainable.counts(model)
        trained_parameters = models.trained_parameters(self.merged) or counts["total_parameters"]
        log.log_metrics(counts | {"trainable_parameters": trained_parameters} | self._effort())
        tested = self.test(model, judged, self.evaluation(tokenizer, model.config), self.choices)
        if not tested:
            return
        if same_data:
            self._warn(tested.validation_scores[self.task.metric])
        info = replace(
            info,
            technique=self.technique.name,
            settings=results.stored_settings(self.plan, tested),
        )
        shutil.copytree(self.merged, self.scratch / "bundle")
        bundles.write_info(self.scratch / "bundle", info)
        if adapted:
            shutil.copytree(base, self.scratch / "base")
        self.report(
            tested,
            results.Saved(
                self.scratch / "bundle",
                self.scratch / "base" if adapted else None,
                info.base_fingerprint,
                results.trained_mib(self.scratch / "bundle"),
            ),
            log,
        )

    def _warn(self, score: float) -> None:
        """Say that merging has lost what was learnt, where it has. score: on the runs' own validation data, in percent."""
        name = self.task.metric
        before = [source.metrics.get(f"best_validation_{name}", math.nan) for source in self.sources]
        # A model alone may score a rounding error less than it did.
        if any(map(math.isnan, before)) or score > min(before) - 0.05:
            return
        usual = models.recipe().fitting(models.Saved("", self.sources[0].bundle)).how
        used = self.plan.settings["merge_method"]
        remedy = "" if used in (usual, "svd") else f" Use --method {usual}."
        print(
            f"warning: on validation the merged model has {LABELS[name]} {score:.1f}, the runs have {min(before):.1f} to "
            f"{max(before):.1f}. What started from different random values often has no mean that keeps what was learnt."
            f"{remedy}",
            file=sys.stderr,
        )

    def _effort(self) -> dict[str, float]:
        """The time that training all merged models took, where it is known."""
        spent = [source.metrics.get("training_seconds", math.nan) for source in self.sources]
        return {} if math.isnan(sum(spent)) else {"training_seconds": sum(spent)}


def _source(run_id: str, folder: Path) -> Source:
    """A run of the store, its model copied into a folder; UserError where it is not finished or was logged otherwise."""
    folder.mkdir()
    run = logged_run.read(run_id, folder)
    bundle = trained_bundle(f"runs:/{run_id}/model", folder, f"The model of run {run_id}")
    experiment = experiments.name_of(run.experiment_id)
    return Source(run_id, experiment, run.tags, run.metrics, run.config, bundle)


def _check_alike(sources: Sequence[Source]) -> None:
    """UserError names the first run whose tags say that its model cannot be merged with the first one's."""
    first = sources[0]
    for other in sources[1:]:
        for tag, what in ALIKE.items():
            # All weights have no base of their own; they are alike if they started from the same checkpoint.
            name = tag if tag != "base_fingerprint" or first.tags.get(tag) else "checkpoint"
            one, two = first.tags.get(name, ""), other.tags.get(name, "")
            if one != two:
                raise UserError(
                    f"Run {other.run_id} cannot be merged with run {first.run_id}: they differ in {what} "
                    f"({two[:60] or 'not recorded'} and {one[:60] or 'not recorded'})."
                )


def _settings_of(source: Source, data_dir: str | None) -> RunArgs:
    """The settings of a run that its model is asked and judged with."""
    read = {field.name for field in fields(RunArgs) if field.metadata["group"] == DATA}
    read |= {"task", "seed", "precision", "model_checkpoint"}
    given = {name: value for name, value in source.config.items() if name in read}
    return RunArgs(**given | ({"data_dir": data_dir} if data_dir else {}))


def _technique(sources: Sequence[Source], recipe: Recipe) -> Merge:
    kind = kind_of(sources[0].tags["technique"], len(sources), recipe.how)
    return kind(
        merge_method=recipe.how,
        weights=", ".join(f"{weight:.9g}" for weight in recipe.weights_of(len(sources))),
        density=recipe.density,
        rank=recipe.rank,
        merge_seed=recipe.seed,
        sources=", ".join(source.digest for source in sources),
        choices=math.prod(source.choices for source in sources),
    )


def _check_data(folder: str, sources: Sequence[Source], named: bool) -> None:
    """UserError where a folder holds no data, data with other labels than the models', or, unless it was named, other data
    than the first run was trained from."""
    first = sources[0]
    record = logged_run.data_record(folder, first.run_id, named)
    known = bundles.read_bundle(first.bundle).settings.get("labels")
    if known is not None and list(known) != list(record.labels):
        raise UserError(
            f"{folder} has the labels {', '.join(record.labels)[:100]}, run {first.run_id} has {', '.join(known)[:100]}: name "
            "other data (--data_dir)."
        )
    if not named and record.fingerprint != first.tags["data_fingerprint"]:
        raise UserError(
            f"{folder} has changed since run {first.run_id}: name the data to test with (--data_dir)."
        )
