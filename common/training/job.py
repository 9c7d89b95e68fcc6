"""A plan carried out: data split, a model trained, its best epoch tested once, everything logged to the run."""

import resource
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, set_seed

from .. import stopping
from ..data.rows import Rows
from ..models import base as models
from ..models import initialisation, parts, trainable
from ..models.cpu_kernels import quicken
from ..models.hooks import hook_of
from ..tasks.batching import Batch
from ..tasks.interface import Loss
from ..tracking.run_log import TrainingLog
from . import checkpoints, distillation, epochs, results
from .assessment import Assessment, Judged
from .evaluation import Evaluation, Split
from .features import training_features
from .optimizer import ParameterGroups
from .planning import Plan
from .sampling import drawn
from .trainer import WEIGHTS, TaskTrainer


@dataclass(frozen=True)
class Splits(Judged):
    """The parts of the data, as the model takes them."""

    train: Split


class Job(Assessment):
    """A plan whose model is trained, then assessed."""

    def __init__(self, planned: Plan, scratch: Path):
        self.groups = ParameterGroups(planned.technique, planned.args, planned.family, planned.head)
        super().__init__(planned, scratch)

    def carry_out(self, log: TrainingLog) -> None:
        """Load, split, train, test, report."""
        teacher = self.plan.teacher
        further = {"learning_rate_source": self.plan.rate_source} | (
            {"teacher": teacher.name} if teacher else {}
        )
        self.log_settings(log, self.plan.settings | further)
        set_seed(self.args.seed)
        model, tokenizer = models.load_base(self.plan.checkpoint, self.plan.head, **self.plan.config)
        splits = self._split_all(tokenizer, model.config)
        log.log_data(self.record.to_json(), "training")
        log.log_data(self.record.to_json(), "testing")
        evaluation = self.evaluation(tokenizer, model.config)
        if teacher:
            taught = distillation.taught(
                self.plan, splits.train, evaluation, tokenizer, model.config, self.arguments
            )
            splits = replace(splits, train=taught)
            evaluation = replace(evaluation, collator=distillation.with_taught(evaluation.collator))
        model = self._with_technique(model, splits.train, evaluation)
        log.log_metrics(trainable.counts(model))
        trainer, seconds = self._train(model, splits, evaluation, log)
        model = self._best(trainer)
        self._log_effort(trainer.state.global_step, seconds, log)
        choices = epochs.choices(self.technique.num_train_epochs, self.args.average_last)
        tested = self.test(model, splits, evaluation, choices, trainer.best_outputs)
        if tested:
            self.report(tested, results.save_model(model, tokenizer, self.plan, tested, self.scratch), log)
            results.log_curves(log, trainer.state.log_history, self.plan)

    def _arguments(self) -> TrainingArguments:
        args = self.args
        return TrainingArguments(
            output_dir=str(self.output_dir),
            per_device_train_batch_size=args.batch_size,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            num_train_epochs=self.technique.num_train_epochs,
            optim=args.optim,
            learning_rate=self.groups.rate,
            weight_decay=self.technique.weight_decay,
            warmup_steps=args.warmup_ratio,
            lr_scheduler_type=args.lr_scheduler_type,
            max_grad_norm=args.max_grad_norm,
            seed=args.seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=self.autocast == torch.bfloat16,
            fp16=self.autocast == torch.float16,
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_steps=args.logging_steps,
            logging_first_step=True,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            report_to="none",
            ddp_find_unused_parameters=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )

    def _split_all(self, tokenizer: Any, config: Any) -> Splits:
        """Every part of the data; UserError if nothing is left to train on."""
        args = self.args
        with self.arguments.main_process_first(desc="tokenizing"):
            rows = Rows(self.drawn_of("train", args.max_train_samples))
            train = Split(rows, training_features(self.plan, tokenizer, config, rows))
            judged = self.judged_by(tokenizer, config)
        return Splits(judged.validation, judged.test, train)

    def _with_technique(self, model: Any, train: Split, evaluation: Evaluation) -> Any:
        """The base with what the technique trains, ready for this device."""
        family = self.plan.family
        model = models.apply(self.technique.method(family), model, family, self.plan.head)
        if initialisation.needs_data(model):
            model = model.to(self.arguments.device)
            initialisation.from_data(model, self._loss(train), self._some_batches(train, evaluation))
        if self.args.freeze_embeddings:
            for name in parts.embeddings(model, family):
                model.get_parameter(name).requires_grad_(False)
        model = quicken(model)
        if self.args.gradient_checkpointing:
            parts.checkpoint_gradients(model)
        if self.args.torch_compile:
            # In place: parameters keep their names. Batches differ in length.
            model.compile(backend=self.args.torch_compile, dynamic=True)
        return model

    def _some_batches(self, train: Split, evaluation: Evaluation) -> Iterator[Batch]:
        """Windows drawn by the seed, the same for every process."""
        places = drawn(len(train.features), initialisation.WINDOWS, self.args.seed)
        chosen = range(len(train.features)) if places is None else places
        for begin in range(0, len(chosen), self.args.batch_size):
            batch = evaluation.collator(
                [train.features[int(i)] for i in chosen[begin : begin + self.args.batch_size]]
            )
            yield {name: tensor.to(self.arguments.device) for name, tensor in batch.items()}

    def _train(
        self, model: Any, splits: Splits, evaluation: Evaluation, log: TrainingLog
    ) -> tuple[TaskTrainer, float]:
        """(the trainer when it is done, the seconds that its steps took)."""
        # Several processes would each stop at a step of their own.
        with stopping.deferred(self.arguments.world_size == 1) as stop:
            trainer = TaskTrainer(
                options=self.args,
                output_dir=self.output_dir,
                loss=self._loss(splits.train),
                metrics=self.task.metrics,
                evaluation=evaluation,
                log=log,
                train=splits.train,
                validation=splits.validation,
                stop=stop,
                groups=self.groups,
                model=model,
                args=self.arguments,
                hook=hook_of(model),
            )
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            trainer.train_on(checkpoints.newest(self.output_dir) if self.args.resume else None)
            seconds = trainer.training_seconds
            if trainer.last_epochs:
                epochs.try_mean(trainer, trainer.last_epochs, self.output_dir / "best" / WEIGHTS)
            return trainer, seconds

    def _loss(self, train: Split) -> Loss:
        if self.args.pack_batches:
            return self.task.unpadded_loss(self.plan.family, self.args)
        loss = self.task.training_loss(train.features, self.args, self.record.labels)
        return distillation.loss_of(self.task, loss, self.args) if self.plan.teacher else loss

    def _best(self, trainer: TaskTrainer) -> Any:
        """The model with the weights of the best epoch."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        trainer.accelerator.wait_for_everyone()
        trainable.load(model, self.output_dir / "best" / WEIGHTS)
        return model

    def _log_effort(self, steps: int, seconds: float, log: TrainingLog) -> None:
        args = self.args
        windows = steps * args.batch_size * args.gradient_accumulation_steps * self.arguments.world_size
        log.log_metrics(
            {
                "training_seconds": seconds,
                "train_samples_per_second": windows / seconds,
                "peak_memory_mib": _peak_memory(),
            }
        )


def _peak_memory() -> float:
    """Peak memory in MiB: of the GPU since its last reset, of the whole process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
