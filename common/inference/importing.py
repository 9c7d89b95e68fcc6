"""`import_model`: anybody's model becomes a run: decided on validation, tested once, logged, and so compared, gated and registered
like the models that are trained here."""

import shlex
import sys
from dataclasses import dataclass, replace
from os import PathLike

from ..bounds import check_bounds
from ..errors import UserError
from ..models import saving, trainable
from ..models.bundles import BundleInfo
from ..models.cpu_kernels import quicken
from ..paths import interpreter
from ..tracking.run_log import TrainingLog
from ..training import fingerprint, recording, results
from ..training.assessment import Assessment
from ..training.fit import record
from ..training.planning import Plan, plan
from ..training.run_folder import own
from ..training.settings import RunArgs, Technique, option
from . import foreign


@dataclass(frozen=True)
class Imported(Technique):
    """What decides an imported model beside its checkpoint, in the place of a technique's hyper-parameters."""

    name = "Imported"
    key = "imported"

    content: str = option("", "what decides its weights: its files, and the code that reads them")
    learning_rate: float = option(1.0, "unused: nothing is trained")


def import_model(
    name: str | None,
    args: RunArgs,
    *,
    adapter: "str | PathLike[str] | None" = None,
    called: str | None = None,
) -> str:
    """Test a model that was trained elsewhere on prepared data, and log it as a run; returns the run's id.

    name: a folder or a model of the hub; with an adapter (the folder that PEFT's save_pretrained wrote) its base, by default
    the one that the adapter names. args: of the data and the record; the task is that of the model's head. called: the name
    of its technique in tables; default: "Imported". UserError if `foreign.open_` refuses the model, its labels are not those
    of the data, or its family is none of this project's.
    """
    check_bounds(args)
    found = foreign.open_(name, adapter)
    kind = type("Named", (Imported,), {"name": called, "__module__": __name__}) if called else Imported
    args = replace(args, task=found.task.name, model_checkpoint=found.checkpoint.name)
    # The code that makes the model of its files counts as well.
    content = f"{found.content} code {fingerprint.code('inference')}"
    planned = plan(kind(content=content), args, found.checkpoint)
    if planned.args.skip_finished and (done := planned.finished):
        print(f"{planned.technique.name}: run {done} already holds this result; nothing to do.")
        return done
    _check_labels(found, planned)
    with own(planned.output_dir, planned.key, False, recording.abandon) as state:
        job = ImportJob(planned, found, None if adapter is None else str(adapter))
        return record(job, state, shlex.join([interpreter(), *sys.argv]))


def _check_labels(found: foreign.Opened, planned: Plan) -> None:
    """UserError where the model's labels are not those of the data, in their order."""
    wanted = list(planned.record.labels)
    if not wanted:
        return
    config = found.model.config
    held = [str(config.id2label[i]) for i in range(config.num_labels)]
    # Without names of its own, a head's labels are those of the data.
    plain = held == [f"LABEL_{i}" for i in range(len(held))]
    if len(held) != len(wanted) or (held != wanted and not plain):
        raise UserError(
            f"{found.checkpoint.name} gives the labels {', '.join(held)[:100]}; {planned.args.data_dir} has "
            f"{', '.join(wanted)[:100]}, in this order: prepare the data with the model's labels, or compare by name "
            "(evaluate.py)."
        )


class ImportJob(Assessment):
    """A plan whose model was trained elsewhere, assessed."""

    def __init__(self, planned: Plan, found: foreign.Opened, adapter: str | None):
        super().__init__(planned, planned.output_dir / "scratch")
        self.found, self.adapter = found, adapter
        if adapter is not None:
            self.tags = {"adapter": adapter}

    def carry_out(self, log: TrainingLog) -> None:
        """Split, test, report."""
        self.log_settings(log, self.untrained_settings() | self.tags)
        model = quicken(self.found.model).to(self.arguments.device)
        tokenizer = self.found.tokenizer
        judged = self.judged_by(tokenizer, model.config)
        log.log_data(self.record.to_json(), "testing")
        counts = trainable.counts(model)
        log.log_metrics(counts | {"trainable_parameters": self.found.trained or counts["total_parameters"]})
        tested = self.test(model, judged, self.evaluation(tokenizer, model.config), choices=1)
        if not tested:
            return
        if self.record.labels:
            names = dict(enumerate(self.record.labels))
            model.config.id2label, model.config.label2id = names, {label: i for i, label in names.items()}
        info = BundleInfo(
            technique=self.technique.name,
            model_type=self.plan.family.model_type,
            checkpoint=self.plan.checkpoint.name,
            base_fingerprint="",
            task=self.task.name,
            head=self.found.head,
            settings=results.stored_settings(self.plan, tested),
        )
        bundle = self.scratch / "bundle"
        saving.save_bundle(bundle, info, model, tokenizer)
        self.report(tested, results.Saved(bundle, None, "", results.trained_mib(bundle)), log)
