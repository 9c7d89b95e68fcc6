"""A run settled and checked before any weight is read: the technique, its data, its checkpoint, its fingerprint."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data.ensure import ensure
from ..data.prepared import Splits
from ..data.record import DataRecord
from ..errors import NotHere
from ..models import base, parts
from ..models.families import Family, family_of
from ..paths import ROOT
from ..tasks import naming
from ..tasks.interface import Task
from ..tasks.table import head_of, task_of
from ..tasks.tokenizer_reading import check_reading
from ..tracking import experiments, runs, store
from . import fingerprint, rates, stored_checkpoint, teachers
from .refusals import check, check_model
from .settings import RunArgs, Technique, resolved, run_fingerprint, settled
from .teachers import Teacher


@dataclass(frozen=True)
class Plan:
    """A run with everything settled and checked that can be without reading weights; args have data_dir and experiment_name."""

    technique: Technique
    args: RunArgs
    task: Task
    experiment: str
    """The MLflow experiment."""
    precision: str
    """fp32, fp16 or bf16."""
    splits: Splits
    """The prepared data's parts (train, validation, test)."""
    record: DataRecord
    checkpoint: base.Checkpoint
    family: Family
    config: dict[str, Any]
    """Fields of the model's config that the data decides."""
    rate_source: str
    """Why the technique's learning rate is what it is."""
    settings: dict[str, Any]
    """Every field that decides what is computed, flat."""
    content: dict[str, str]
    """Fingerprints of everything else that does: data, weights and tokenizer, teacher, method, code."""
    key: str
    """Fingerprint of the run: one digest of its inputs."""
    teacher: Teacher | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        """What decides the result, part by part."""
        return {"settings": self.settings, "content": self.content}

    @property
    def head(self) -> str:
        """The head that the task's models have in this family."""
        found = head_of(self.task, self.family)
        # `check_model` refuses a family without one.
        assert found is not None
        return found

    @property
    def finished(self) -> str | None:
        """The id of a finished run of the same content."""
        return runs.finished_run(self.experiment, self.key)

    @property
    def output_dir(self) -> Path:
        """Where its checkpoints lie while it lasts."""
        default = ROOT / "mlruns" / "checkpoints" / f"{self.technique.key}-{self.key[:12]}"
        return Path(self.args.output_dir or default)


def plan(technique: Technique, args: RunArgs, checkpoint: base.Checkpoint | None = None) -> Plan:
    """Settle a run; UserError names what prevents it, before any weight is read.

    checkpoint: the base; default: what --model_checkpoint names.
    """
    args = settled(args)
    check(technique, args)
    precision = choose_precision(args.precision)
    task = task_of(args.task)
    store.configure()
    assert args.data_dir is not None
    splits, record = ensure(Path(args.data_dir), task.data)
    experiment = experiments.experiment_name(args.experiment_name, naming.experiment(task, record.called))
    args = replace(args, experiment_name=experiment)
    checkpoint = checkpoint or resolve_checkpoint(args.model_checkpoint)
    config = base.load_config(checkpoint)
    family = family_of(config.model_type)
    check_model(technique, args, family, config)
    technique, rate_source = with_rate(technique, config)
    settings = resolved(technique, args) | {"precision": precision}
    of_technique = fingerprint.of_technique(technique, family)
    head = head_of(task, family)
    assert head is not None
    base.check_method(technique.method(family), config, family, head)
    teacher = teachers.resolve(args.teacher) if args.teacher else None
    content = {
        "data": record.fingerprint,
        "checkpoint": fingerprint.checkpoint(checkpoint),
        **({"teacher": teacher.content} if teacher else {}),
        **of_technique,
    }
    return Plan(
        technique=technique,
        args=args,
        task=task,
        experiment=experiment,
        precision=precision,
        splits=splits,
        record=record,
        checkpoint=checkpoint,
        family=family,
        config=task.head_config(record),
        rate_source=rate_source,
        settings=settings,
        content=content,
        key=run_fingerprint(settings, **content),
        teacher=teacher,
    )


def with_rate(technique: Technique, config: Any) -> tuple[Technique, str]:
    """(a technique whose learning rate is set, why it is what it is): without one, that for a model of the config's size."""
    if technique.learning_rate is not None:
        return technique, "set"
    rate, source = rates.chosen(technique.rates, parts.size(config))
    return replace(technique, learning_rate=rate), source


def resolve_checkpoint(name: str) -> base.Checkpoint:
    """A checkpoint of the store (models:/..., runs:/...), of a folder, of the hub, or the packaged one."""
    return (
        stored_checkpoint.resolve(name)
        if stored_checkpoint.is_stored(name)
        else base.resolve_checkpoint(name)
    )


def check_tokenizer(planned: Plan) -> None:
    """UserError where the checkpoint's tokenizer does not fit its model, or does not read the data."""
    check_reading(
        base.load_tokenizer(planned.checkpoint),
        planned.splits,
        planned.task,
        name=planned.checkpoint.name,
        data_dir=str(planned.args.data_dir),
    )


def choose_precision(precision: str) -> str:
    """fp32, fp16 or bf16 for `auto`: half precision only where the device multiplies it in hardware."""
    if precision == "auto":
        if not torch.cuda.is_available():
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if precision == "fp16" and not torch.cuda.is_available():
        raise NotHere("--precision fp16 needs a GPU; use --precision fp32.")
    return precision
