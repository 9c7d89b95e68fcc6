"""The Hugging Face Trainer with this suite's batches, evaluation and checkpoints, which hold only the trained weights."""

import itertools
import math
import pickle
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerControl, TrainingArguments
from transformers.trainer_callback import ProgressCallback, TrainerState

from ..atomic import atomic_write
from ..errors import UserError, first_line
from ..models import trainable
from ..models.hooks import TrainingHook
from ..stopping import Stop
from ..tasks.batching import Batch
from ..tracking.run_log import RunLog
from . import checkpoints
from .batch_order import GroupedBatches, Loader
from .callbacks import Progress, Reporter
from .epochs import LastEpochs
from .evaluation import Evaluation, Split
from .gradient_norms import GradientNorms
from .optimizer import ParameterGroups
from .settings import RunArgs

WEIGHTS = "trainable.safetensors"


class TaskTrainer(Trainer):
    """Trains on a split, evaluates on another at the end of each epoch, and keeps the best weights and checkpoints.

    output_dir: where they lie. loss: (model, batch without its labels, labels) → the loss summed over every label.
    metrics: validation scores that are logged; the first one decides. stop: whether a signal asks to leave. groups: what the
    optimizer updates at which rate. hook: what the technique does beside the optimizer.
    """

    def __init__(
        self,
        options: RunArgs,
        output_dir: Path,
        loss: Callable[[Any, dict[str, torch.Tensor], torch.Tensor], torch.Tensor],
        metrics: Sequence[str],
        evaluation: Evaluation,
        log: RunLog,
        train: Split,
        validation: Split,
        stop: Stop,
        groups: ParameterGroups,
        model: torch.nn.Module,
        args: TrainingArguments,
        hook: TrainingHook | None = None,
    ):
        super().__init__(
            model=model,
            args=args,
            data_collator=evaluation.collator,
            train_dataset=train.features,
            eval_dataset=validation.features,
        )
        self.options, self.output_dir, self.loss, self.metrics = options, output_dir, loss, metrics
        self.evaluation, self.run_log, self.stop = evaluation, log, stop
        self.groups, self.hook = groups, hook
        self.control: TrainerControl
        self.optimizer: torch.optim.Optimizer | None
        self.examples, self.validation = train.examples, validation
        self.resumed: dict[str, Any] = {}
        """The notes of the checkpoint that training goes on from."""
        self.best_outputs: Any = None
        """The validation split's outputs of the best weights; None where an earlier process found these."""
        self.parts = 1
        """Into how many parts a batch that does not fit on the device is divided."""
        self._aside: Path | None = None
        self._batches: list[Batch] = []
        self._losses: list[tuple[int, int, float, torch.Tensor]] = []
        # That it counts the labels of a step and leaves the division to compute_loss.
        self.model_accepts_loss_kwargs = True
        self.evaluation_seconds, self.started = 0.0, time.perf_counter()
        count = options.average_last
        self.last_epochs = LastEpochs(output_dir / "epochs", count) if count else None
        self.gradient_norms = GradientNorms() if options.gradient_norms else None
        if self.gradient_norms:
            self.add_callback(self.gradient_norms)
        self.add_callback(Reporter(self))
        self.remove_callback(ProgressCallback)
        if self.args.should_log:
            self.add_callback(Progress)

    def train_on(self, checkpoint: Path | None) -> None:
        """Train to the end: from the checkpoint, if there is one, to the same weights, curve and scores as without a break."""
        self.started = time.perf_counter()
        if self.last_epochs and self.args.should_save:
            self.last_epochs.restore(checkpoint)
        if checkpoint is None:
            self.train()
            return
        self.resumed = checkpoints.notes(checkpoint)
        self.parts = self.resumed["parts"]
        if (checkpoint / checkpoints.BEST).exists() and self.args.should_save:
            best = self.output_dir / "best"
            best.mkdir(exist_ok=True)
            checkpoints.link(checkpoint / checkpoints.BEST, best / WEIGHTS)
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if state.global_step >= state.max_steps or self.out_of_patience(state.log_history):
            # The Trainer would train a step more.
            self.state = state
            return
        try:
            self.train(resume_from_checkpoint=str(checkpoint))
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{checkpoint} is not used: its optimizer's state is not plain data and could run code "
                f"({first_line(error)}). Remove it and go on with --resume."
            ) from None

    @property
    def chosen_by(self) -> str:
        """The score that chooses the epoch, as the trainer's history names it."""
        return f"eval_{self.metrics[0]}"

    @property
    def training_seconds(self) -> float:
        """Spent on the steps so far, by this process and those before it; without evaluation."""
        now = time.perf_counter() - self.started - self.evaluation_seconds
        return now + self.resumed.get("seconds", 0.0)

    def get_train_dataloader(self) -> Loader:
        return Loader(
            self.train_dataset,
            batch_sampler=GroupedBatches(
                self.train_dataset.lengths,
                self.args.per_device_train_batch_size,
                seed=self.args.seed,
                part=(self.args.process_index, self.args.world_size),
            ),
            collate_fn=self.data_collator,
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """transformers' choice of --optim, on the groups of this run."""
        if self.optimizer is None:
            model = self.model if model is None else model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = kind(self.groups.of(model, self.get_decay_parameter_names(model)), **options)
        return self.optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The mean over all labels of the optimizer step, however many batches and processes share it."""
        labels = inputs.pop("labels")
        loss = self.loss(model, inputs, labels)
        if self.hook is not None:
            # All labels of the step together bring it once.
            loss = loss + self.hook.extra_loss() * labels.ne(-100).sum()
        # The processes' gradients are averaged.
        return loss * self.args.world_size / num_items_in_batch

    def training_step(
        self, model: Any, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One batch forwards and backwards; in parts, which have the same gradients, if it does not fit on the device."""
        self._batches.append(inputs)
        place = (self.state.global_step, len(self._batches) - 1, self._get_learning_rate())
        while True:
            try:
                loss = self._in_parts(model, inputs, num_items_in_batch)
                break
            except torch.OutOfMemoryError as error:
                message = first_line(error)
            # Here, where the error no longer holds on to what the step had computed.
            self._divide(message)
            self._repeat(model, num_items_in_batch)
        self._losses.append((*place, loss))
        if loss.device.type == "cpu":
            self.check_losses()
        return loss

    def _in_parts(
        self, model: Any, inputs: Batch, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        if self.parts == 1:
            return super().training_step(model, inputs, num_items_in_batch)
        rows = len(inputs["labels"])
        bounds = np.linspace(0, rows, min(self.parts, rows) + 1).astype(int)
        return sum(
            super(TaskTrainer, self).training_step(
                model, {name: tensor[begin:end] for name, tensor in inputs.items()}, num_items_in_batch
            )
            for begin, end in itertools.pairwise(bounds)
        )

    def _divide(self, message: str) -> None:
        args = self.args
        if args.world_size > 1:
            # The other processes wait for gradients of the step that this one cannot do.
            raise UserError(
                f"No room on the device ({message}): use --batch_size {max(1, args.per_device_train_batch_size // 2)} "
                f"--gradient_accumulation_steps {2 * args.gradient_accumulation_steps}, which trains the same."
            )
        largest = max(len(batch["labels"]) for batch in self._batches)
        if self.parts >= largest:
            raise UserError(
                f"No room on the device even for one window at a time ({message}): use a shorter --max_length, half precision "
                "or a smaller model."
            )
        self.parts *= 2
        size = math.ceil(largest / self.parts)
        accumulated = args.gradient_accumulation_steps * self.parts
        change = f"batches of {size}, {accumulated} of them a step, from step {self.state.global_step + 1} on"
        print(f"\nNo room on the device: {change}. The effective batch stays as it was.", flush=True)
        self.run_log.set_tags({"no_room": change})
        self.run_log.log_metrics({"batch_parts": self.parts}, step=self.state.global_step)

    def _repeat(self, model: Any, num_items_in_batch: torch.Tensor | int | None) -> None:
        """Sum up again the gradients of the step's earlier batches: the failed batch has added a part of its own to them."""
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for batch in self._batches[:-1]:
            self._in_parts(model, batch, num_items_in_batch)

    def continue_curve(self) -> None:
        """Count what was trained since the loss was last logged in the next point of a curve that goes on."""
        if self.resumed:
            self._tr_loss += self.resumed["loss"]
            self._total_loss_scalar = self.resumed["total_loss"]
            self._globalstep_last_logged = self.resumed["logged"]

    def after_optimizer(self) -> None:
        """What the technique does after the optimizer's step, while the gradients are still there."""
        if self.hook is not None:
            self.hook.after_step(self.state.global_step + 1, not self.accelerator.optimizer_step_was_skipped)

    @property
    def batches_of_step(self) -> int:
        """How many batches the step has had so far."""
        return len(self._batches)

    def begin_step(self) -> None:
        """Forget the batches of the step before."""
        self._batches = []

    def check_losses(self) -> None:
        """UserError that names step, examples and learning rate if a loss since the last check is not finite.

        Called at each step on a CPU. On a GPU, where that would wait for the device, before anything is logged or kept.
        """
        losses, self._losses = self._losses, []
        if not losses or bool(torch.stack([loss for *_, loss in losses]).isfinite().all()):
            return
        step, batch, rate, loss = next(entry for entry in losses if not math.isfinite(entry[-1]))
        self.stop_diverged(f"is {float(loss)}", step, batch, rate)

    def stop_diverged(self, what: str, step: int, batch: int, rate: float) -> None:
        """UserError with what is known of the batch. step: how many were done before."""
        ids = self.examples_of(step, batch)
        last = checkpoints.newest(self.output_dir) if self.args.should_save else None
        kept = f"the last good checkpoint is {last}" if last else "no checkpoint had been written before"
        raise UserError(
            f"The loss {what} at step {step + 1} (learning rate {rate:.3g}, batch of {', '.join(ids)}): training has diverged; "
            f"{kept}. Use a lower --learning_rate."
        )

    def examples_of(self, step: int, batch: int) -> list[str]:
        """Ids of the examples in a step's batch. step: how many were done before."""
        loader = self.get_train_dataloader()
        accumulated = self.args.gradient_accumulation_steps
        epoch, within = divmod(step, math.ceil(len(loader) / accumulated))
        loader.set_epoch(epoch)
        windows: list[int] = next(
            itertools.islice(iter(loader.batch_sampler), within * accumulated + batch, None), []
        )
        # Texts are not cut into windows.
        of = getattr(self.train_dataset, "example_index", None)
        examples = [i if of is None else int(of[i]) for i in windows]
        return list(dict.fromkeys(str(self.examples[i]["id"]) for i in examples))

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if self.gradient_norms:
            self.gradient_norms.total = norm
        return norm

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation scores; the best weights so far are kept beside the checkpoints."""
        self.check_losses()
        started = time.perf_counter()
        model = self.accelerator.unwrap_model(self.model)
        scores, outputs = self.validated(model)
        found = {f"eval_{name}": score for name, score in scores.items()}
        if found[self.chosen_by] > max(self.past_scores(), default=-1.0):
            self.best_outputs = outputs
            if self.args.should_save:
                best = self.output_dir / "best"
                best.mkdir(exist_ok=True)
                with atomic_write(best / WEIGHTS) as part:
                    trainable.save(model, part)
        if self.args.should_save and self.last_epochs:
            self.last_epochs.keep(model, self.state.global_step)
        self.evaluation_seconds += time.perf_counter() - started
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def validated(self, model: Any) -> tuple[dict[str, float], Any]:
        """(the validation scores of a model's weights, by metric, in percent; its outputs)."""
        outputs = self.evaluation.outputs(model, self.validation)
        predictions = self.evaluation.undecided(outputs, self.validation)
        scores, _ = self.evaluation.scores(predictions, self.validation.examples)
        return {name: scores[name] for name in self.metrics}, outputs

    def past_scores(self, log_history: list[dict[str, Any]] | None = None) -> list[float]:
        """The deciding score of each evaluation so far."""
        name = self.chosen_by
        history = self.state.log_history if log_history is None else log_history
        return [entry[name] for entry in history if name in entry]

    def out_of_patience(self, log_history: list[dict[str, Any]]) -> bool:
        """Whether the best evaluation lies further back than --early_stopping_patience allows."""
        patience, scores = self.options.early_stopping_patience, self.past_scores(log_history)
        return bool(patience and len(scores) - 1 - int(np.argmax(scores or [0])) >= patience)

    def _get_output_dir(self, trial: object = None) -> str:
        return str(self._aside or self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: object = None) -> None:
        """Write a checkpoint aside, then put it into place whole; UserError if the disk is full."""
        self.check_losses()
        aside = self.output_dir / checkpoints.WRITING
        # Processes each keep a sum of their own.
        loss = float(self.accelerator.gather(self._tr_loss).mean())
        try:
            if self.args.should_save:
                shutil.rmtree(aside, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            self._aside = aside
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                folder = aside / f"checkpoint-{self.state.global_step}"
                best = self.output_dir / "best" / WEIGHTS
                if best.exists():
                    checkpoints.link(best, folder / checkpoints.BEST)
                if self.last_epochs:
                    self.last_epochs.link_into(folder)
                checkpoints.seal(
                    folder,
                    {
                        "loss": loss,
                        "total_loss": self._total_loss_scalar,
                        "logged": self._globalstep_last_logged,
                        "seconds": self.training_seconds,
                        "parts": self.parts,
                    },
                )
                checkpoints.place(folder, self.output_dir, checkpoints.KEEP)
        except (OSError, RuntimeError, SafetensorError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            shutil.rmtree(aside, ignore_errors=True)
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(
                f"A checkpoint cannot be written to {self.output_dir}: {reason}. The one before it is whole: make room or change "
                "the folder's rights, and go on with --resume."
            ) from error
        finally:
            self._aside = None

    def _save(self, output_dir: str | None = None, state_dict: object = None) -> None:
        folder = Path(str(output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        trainable.save(self.accelerator.unwrap_model(self.model), folder / WEIGHTS)
        if self.hook is not None:
            save_file(self.hook.state(), folder / checkpoints.HOOK)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint = Path(resume_from_checkpoint)
        trainable.load(self.accelerator.unwrap_model(model or self.model), checkpoint / WEIGHTS)
        if self.hook is not None:
            self.hook.load_state(load_file(checkpoint / checkpoints.HOOK))

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Without the lengths that DoRA trains: decay would pull the weights themselves to 0."""
        return [name for name in super().get_decay_parameter_names(model) if not trainable.is_length(name)]
