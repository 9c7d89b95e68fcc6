"""A plan carried out: data split, a model trained, its best epoch tested once, everything logged to the run."""

import math
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, set_seed

from .. import stopping
from ..data.rows import Rows
from ..models import base as models
from ..models import initialisation, parts
from ..models.cpu_kernels import keep_memory, quicken
from ..models.hooks import hook_of
from ..tasks.batching import Batch
from ..tasks.interface import Loss
from ..tracking.run_log import TrainingLog
from . import checkpoints, confidence, results
from .epochs import try_mean
from .evaluation import Evaluation, Split
from .features import training_features
from .optimizer import ParameterGroups
from .planning import Plan
from .sampling import drawn, subset
from .trainer import WEIGHTS, TaskTrainer


@dataclass(frozen=True)
class Splits:
    """The parts of the data, as the model takes them."""

    train: Split
    validation: Split
    test: Split


class Job:
    """A plan being carried out.

    scratch: folder for what is logged as files.
    """

    def __init__(self, planned: Plan, scratch: Path):
        self.plan, self.scratch = planned, scratch
        self.technique, self.args, self.task = planned.technique, planned.args, planned.task
        self.record, self.output_dir = planned.record, planned.output_dir
        self.groups = ParameterGroups(planned.technique, planned.args, planned.family, planned.head)
        on_gpu = torch.cuda.is_available()
        # Autocast converts every activation too: on a CPU that costs more than half of what the products gain.
        self.autocast = {"fp16": torch.float16, "bf16": torch.bfloat16 if on_gpu else None}.get(
            planned.precision
        )
        half_products = planned.precision == "bf16" and not on_gpu
        torch.set_float32_matmul_precision("medium" if half_products else "highest")
        keep_memory()
        self.arguments = self._arguments()
        # Reading the device is what joins the launcher's processes; until then each believes that it is alone.
        _ = self.arguments.device
        self.is_main = self.arguments.process_index == 0

    def train_and_test(self, log: TrainingLog) -> None:
        """Load, split, train, test, report."""
        self._log_settings(log)
        set_seed(self.args.seed)
        model, tokenizer = models.load_base(self.plan.checkpoint, self.plan.head, **self.plan.config)
        splits = self._split_all(tokenizer, model.config)
        log.log_data(self.record.to_json(), "training")
        log.log_data(self.record.to_json(), "testing")
        evaluation = Evaluation(
            self.task,
            self.args,
            self.record.version,
            self.task.collator(tokenizer, model.config),
            self.autocast,
            self.arguments,
        )
        model = self._with_technique(model, splits.train, evaluation)
        log.log_metrics(models.parameter_counts(model))
        trainer, seconds = self._train(model, splits, evaluation, log)
        model = self._best(trainer)
        self._log_effort(trainer.state.global_step, seconds, log)
        tested = self.test(model, splits, evaluation)
        if tested:
            self._report(tested, model, tokenizer, trainer.state.log_history, log)

    def leave_group(self) -> None:
        """End the work with other processes: threads that still wait for them abort an interpreter that ends."""
        if self.arguments.world_size > 1:
            torch.distributed.destroy_process_group()

    def test(self, model: torch.nn.Module, splits: Splits, evaluation: Evaluation) -> results.Tested | None:
        """Decide on validation what is to be decided, then look at test once. None in every process but the first."""
        validation, test = splits.validation, splits.test
        outputs = evaluation.outputs(model, validation)
        validated = evaluation.undecided(outputs, validation)
        decision = evaluation.decide(validated, validation)
        if decision is not None:
            validated = evaluation.predictions(outputs, validation, decision)
        started = time.perf_counter()
        outputs = evaluation.outputs(model, test, progress="test")
        predictions = evaluation.predictions(outputs, test, decision)
        seconds = time.perf_counter() - started
        if not self.is_main:
            return None
        test_scores, each = evaluation.scores(predictions, test.examples)
        validation_scores, validated_each = evaluation.scores(validated, validation.examples)
        # The epoch, or the mean of some, was chosen by validation too.
        candidates = max(1, math.ceil(self.technique.num_train_epochs)) + bool(self.args.average_last)
        groups = self.task.groups(validation.examples, self.record)
        fitted = confidence.fit(self.task, validated, validated_each, candidates, groups)
        return results.Tested(
            validation=validation,
            test=test,
            decision=decision,
            validation_predictions=validated,
            test_predictions=predictions,
            validation_scores=validation_scores,
            test_scores=test_scores,
            each=each,
            validated_each=validated_each,
            seconds=seconds,
            confidence=confidence.measure(fitted, self.task, predictions, each) if fitted else None,
        )

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

    def _log_settings(self, log: TrainingLog) -> None:
        log.log_params(
            self.plan.settings
            | {
                "learning_rate_source": self.plan.rate_source,
                "model_checkpoint": self.plan.checkpoint.name,
                "data": self.record.title,
                "data_dir": self.args.data_dir,
            }
        )
        log.log_dict(asdict(self.technique) | asdict(replace(self.args, resume=False)), "config.yaml")
        log.log_dict(self.record.to_json(), "data_record.json")

    def _split_all(self, tokenizer: Any, config: Any) -> Splits:
        """Every part of the data; UserError if nothing is left to train on."""
        args = self.args
        with self.arguments.main_process_first(desc="tokenizing"):
            rows = Rows(self._drawn("train", args.max_train_samples))
            train = Split(rows, training_features(self.plan, tokenizer, config, rows))
            validation = self._split("validation", args.max_validation_samples, tokenizer, config)
            test = self._split("test", args.max_test_samples, tokenizer, config)
        return Splits(train, validation, test)

    def _split(self, name: str, limit: int | None, tokenizer: Any, config: Any) -> Split:
        examples = self._drawn(name, limit).to_list()
        return Split(examples, self.task.features(tokenizer, config, examples, self.args))

    def _drawn(self, name: str, limit: int | None) -> Any:
        """A part of the data, a `datasets.Dataset`, or what is drawn of it."""
        return subset(self.plan.splits[name], limit, self.args.seed, self.task.balanced_by)

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
                try_mean(trainer, trainer.last_epochs, self.output_dir / "best" / WEIGHTS)
            return trainer, seconds

    def _loss(self, train: Split) -> Loss:
        if self.args.pack_batches:
            return self.task.unpadded_loss(self.plan.family, self.args)
        return self.task.training_loss(train.features, self.args, self.record.labels)

    def _best(self, trainer: TaskTrainer) -> Any:
        """The model with the weights of the best epoch."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        trainer.accelerator.wait_for_everyone()
        models.load_trainable(model, self.output_dir / "best" / WEIGHTS)
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

    def _report(
        self,
        tested: results.Tested,
        model: Any,
        tokenizer: Any,
        log_history: list[dict[str, Any]],
        log: TrainingLog,
    ) -> None:
        """Log the model, its predictions and its curves; print the result."""
        figures = results.figures(tested, self.task)
        saved = results.save_model(model, tokenizer, self.plan, tested, self.scratch)
        figures["adapter_mib"] = saved.mib
        log.set_tags({"base_fingerprint": saved.base_fingerprint})
        log.log_model(saved.bundle, saved.base, self.task.request(tested.test.examples[0]), figures)
        folder = self.scratch / "predictions"
        results.write_predictions(tested, self.task, folder)
        log.log_artifact(folder)
        if tested.confidence:
            folder = self.scratch / confidence.FOLDER
            tested.confidence.write(folder, self.task.unit)
            log.log_artifact(folder)
        results.log_curves(log, log_history, self.plan)
        result = results.sentence(self.plan, figures)
        # The description on the run's page.
        log.set_tags(
            {"mlflow.note.content": f"{result}. Brackets: 95% bootstrap intervals over the test examples."}
        )
        print(f"\n{result}")


def _peak_memory() -> float:
    """Peak memory in MiB: of the GPU since its last reset, of the whole process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
