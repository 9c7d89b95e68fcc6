"""The Hugging Face Trainer, fitted to this suite: our batches, our evaluation, checkpoints of just what is trained."""

import itertools
import math
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback, TrainerState

from ..errors import UserError, first_line
from ..models import base
from ..scoring.names import LABELS
from . import checkpoints
from .batch_order import GroupedBatches, Loader
from .gradient_norms import GradientNorms

WEIGHTS = "trainable.safetensors"

BEST = "best.safetensors"
"""In a checkpoint: the weights with the best validation score so far."""

KEEP = 2
"""Checkpoints that are kept: should the last one turn out damaged, the one before it is used."""

DIVERGED = 10.0
"""A loss that is so many times as high as at the beginning has left what more training mends."""


class TaskTrainer(Trainer):
    """Trains for a `Job` (job.py), which predicts and scores for it; `run` is told what happens."""

    def __init__(self, job, run, train, validation, stop, **kwargs):
        super().__init__(train_dataset=train.features, eval_dataset=validation.features, **kwargs)
        self.job, self.run, self.validation, self.stop = job, run, validation, stop
        self.examples = train.examples
        self.resumed = {}
        """Notes of the checkpoint that training goes on from."""
        self.parts = 1
        """Into how many a batch is divided that has no room on the device."""
        self._aside: Path | None = None
        self._batches: list[dict] = []
        self._losses: list[tuple[int, int, float, torch.Tensor]] = []
        # That it counts the labels of a step and leaves the division to compute_loss.
        self.model_accepts_loss_kwargs = True
        self.evaluation_seconds, self.started = 0.0, time.perf_counter()
        self.gradient_norms = GradientNorms() if job.args.gradient_norms else None
        if self.gradient_norms:
            self.add_callback(self.gradient_norms)
        self.add_callback(Reporter(self))
        self.remove_callback(ProgressCallback)
        if self.args.should_log:
            self.add_callback(Progress)

    def train_on(self, checkpoint: Path | None) -> None:
        """Train to the end: from the checkpoint, if there is one, to the same weights, curve and scores as without a break."""
        self.started = time.perf_counter()
        if checkpoint is None:
            self.train()
            return
        self.resumed = checkpoints.notes(checkpoint)
        self.parts = self.resumed["parts"]
        if (checkpoint / BEST).exists() and self.args.should_save:
            best = self.job.output_dir / "best"
            best.mkdir(exist_ok=True)
            checkpoints.link(checkpoint / BEST, best / WEIGHTS)
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if state.global_step >= state.max_steps or self.out_of_patience(state.log_history):
            # The Trainer would train a step more.
            self.state = state
            return
        try:
            self.train(resume_from_checkpoint=str(checkpoint))
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{checkpoint} is not used: it holds what is no plain state of an optimizer and could run code "
                f"({first_line(error)}). Remove it and go on with --resume."
            ) from None

    @property
    def training_seconds(self) -> float:
        """Spent on the steps so far, by this process and those before it; without evaluation."""
        now = time.perf_counter() - self.started - self.evaluation_seconds
        return now + self.resumed.get("seconds", 0.0)

    def get_train_dataloader(self):
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

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The mean over every label of the optimizer step, whatever batches and processes it is shared among."""
        labels = inputs.pop("labels")
        # The processes' gradients are averaged.
        return self.job.loss(model, inputs, labels) * self.args.world_size / num_items_in_batch

    def training_step(self, model, inputs, num_items_in_batch=None):
        """One batch forwards and backwards: in parts where it has no room on the device, which have the same gradients."""
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

    def _in_parts(self, model, inputs, num_items_in_batch):
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
                f"--gradient_accumulation_steps {2 * args.gradient_accumulation_steps}, which trains alike."
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
        said = f"batches of {size}, {accumulated} of them a step, from step {self.state.global_step + 1} on"
        print(f"\nNo room on the device: {said}. The effective batch stays as it was.", flush=True)
        self.run.set_tags({"no_room": said})
        self.run.log_metrics({"batch_parts": self.parts}, step=self.state.global_step)

    def _repeat(self, model, num_items_in_batch) -> None:
        """What the step had summed up before there was no more room, anew: the failed batch has left a part of its own."""
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for batch in self._batches[:-1]:
            self._in_parts(model, batch, num_items_in_batch)

    def begin_step(self) -> None:
        """Forget the batches of the step before."""
        self._batches = []

    def check_losses(self) -> None:
        """UserError that names step, examples and learning rate if a loss since the last check is no number.

        At once on a CPU; on a GPU, which is not to be waited for at each step, before anything is logged or kept.
        """
        losses, self._losses = self._losses, []
        if not losses or bool(torch.stack([loss for *_, loss in losses]).isfinite().all()):
            return
        step, batch, rate, loss = next(entry for entry in losses if not math.isfinite(entry[-1]))
        self.stop_diverged(f"is {float(loss)}", step, batch, rate)

    def stop_diverged(self, what: str, step: int, batch: int, rate: float) -> None:
        """Stop with what is known of the batch that it happened at. step: of those done before."""
        ids = self.examples_of(step, batch)
        last = checkpoints.newest(self.job.output_dir) if self.args.should_save else None
        kept = f"the last good checkpoint is {last}" if last else "no checkpoint had been written before"
        raise UserError(
            f"The loss {what} at step {step + 1} (learning rate {rate:.3g}, batch of {', '.join(ids)}): training has diverged; "
            f"{kept}. Use a lower --learning_rate."
        )

    def examples_of(self, step: int, batch: int) -> list[str]:
        """Ids of the examples in a step's batch. step: of those done before, from 0."""
        loader = self.get_train_dataloader()
        accumulated = self.args.gradient_accumulation_steps
        epoch, within = divmod(step, math.ceil(len(loader) / accumulated))
        loader.set_epoch(epoch)
        windows = next(itertools.islice(iter(loader.batch_sampler), within * accumulated + batch, None), [])
        # Texts are not cut into windows.
        of = getattr(self.train_dataset, "example_index", None)
        examples = [i if of is None else int(of[i]) for i in windows]
        return list(dict.fromkeys(str(self.examples[i]["id"]) for i in examples))

    def _clip_grad_norm(self, model):
        norm = super()._clip_grad_norm(model)
        if self.gradient_norms:
            self.gradient_norms.total = norm
        return norm

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Validation scores; the best weights so far are kept beside the checkpoints."""
        self.check_losses()
        started = time.perf_counter()
        model = self.accelerator.unwrap_model(self.model)
        predictions = self.job.undecided(model, self.validation, self.data_collator)
        scores, _ = self.job.scores(predictions, self.validation.examples)
        found = {f"eval_{name}": scores[name] for name in self.job.task.metrics}
        if self.args.should_save and found[self.job.chosen_by] > max(self.past_scores(), default=-1.0):
            best = self.job.output_dir / "best"
            best.mkdir(exist_ok=True)
            base.save_trainable(model, best / (WEIGHTS + ".part"))
            (best / (WEIGHTS + ".part")).replace(best / WEIGHTS)
        self.evaluation_seconds += time.perf_counter() - started
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def past_scores(self, log_history: list[dict] | None = None) -> list[float]:
        """The deciding score of each evaluation so far."""
        name = self.job.chosen_by
        history = self.state.log_history if log_history is None else log_history
        return [entry[name] for entry in history if name in entry]

    def out_of_patience(self, log_history: list[dict]) -> bool:
        """Whether the best evaluation lies further back than --early_stopping_patience has it."""
        patience, scores = self.job.args.early_stopping_patience, self.past_scores(log_history)
        return bool(patience and len(scores) - 1 - int(np.argmax(scores or [0])) >= patience)

    def _get_output_dir(self, trial=None) -> str:
        return str(self._aside or self.args.output_dir)

    def _save_checkpoint(self, model, trial=None) -> None:
        """Write a checkpoint aside and put it in its place whole; UserError where the disk takes no more."""
        self.check_losses()
        aside = self.job.output_dir / checkpoints.WRITING
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
                best = self.job.output_dir / "best" / WEIGHTS
                if best.exists():
                    checkpoints.link(best, folder / BEST)
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
                checkpoints.place(folder, self.job.output_dir, KEEP)
        except (OSError, RuntimeError, SafetensorError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            shutil.rmtree(aside, ignore_errors=True)
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(
                f"A checkpoint cannot be written to {self.job.output_dir}: {reason}. The one before it is whole: make room or mend "
                "the folder's rights, and go on with --resume."
            ) from error
        finally:
            self._aside = None

    def _save(self, output_dir=None, state_dict=None):
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        base.save_trainable(self.accelerator.unwrap_model(self.model), Path(output_dir) / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        base.load_trainable(
            self.accelerator.unwrap_model(model or self.model), Path(resume_from_checkpoint) / WEIGHTS
        )


class Progress(ProgressCallback):
    """A progress bar with the loss on it and a line for each evaluation, instead of a line for every logged step."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is None or not logs:
            return
        if "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.2f}", refresh=False)
        scores = ", ".join(
            f"{label} {logs[f'eval_{m}']:.1f}" for m, label in LABELS.items() if f"eval_{m}" in logs
        )
        if scores:
            self.training_bar.write(f"epoch {state.epoch:.3g}: validation {scores}")


class Reporter(TrainerCallback):
    """Sends the loss curve to MLflow, saves within long epochs, and stops early when asked to."""

    def __init__(self, trainer: TaskTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if kept := self.trainer.resumed:
            # What was trained since the loss was last logged counts in the next point.
            self.trainer._tr_loss += kept["loss"]
            self.trainer._total_loss_scalar = kept["total_loss"]
            self.trainer._globalstep_last_logged = kept["logged"]

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.begin_step()

    def on_step_end(self, args, state, control, **kwargs):
        # The end of an epoch is evaluated before it is kept: who went on from a checkpoint in between would not evaluate.
        if state.epoch == int(state.epoch) or state.global_step >= state.max_steps:
            return
        if state.global_step % self.trainer.job.args.save_steps == 0 or self.trainer.stop.number is not None:
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if self.trainer.stop.number is not None:
            self.trainer.stop.leave()

    def on_log(self, args, state, control, logs=None, **kwargs):
        names = {
            "loss": "train_loss",
            "learning_rate": "learning_rate",
            "grad_norm": "grad_norm",
            **{f"eval_{metric}": f"validation_{metric}" for metric in self.trainer.job.task.metrics},
        }
        logs = logs or {}
        values = {names[name]: value for name, value in logs.items() if name in names}
        if values:
            self.trainer.run.log_metrics(values, step=state.global_step)
        self.trainer.check_losses()
        if "loss" in logs:
            first = next(entry["loss"] for entry in state.log_history if "loss" in entry)
            # A model that knows the answers already begins near 0, and may well rise from there.
            if logs["loss"] > DIVERGED * max(first, 2.0):
                self.trainer.stop_diverged(
                    f"is {logs['loss']:.4g} after {first:.4g} at the beginning",
                    state.global_step - 1,
                    len(self.trainer._batches) - 1,
                    logs["learning_rate"],
                )

    def on_evaluate(self, args, state, control, **kwargs):
        if self.trainer.out_of_patience(state.log_history):
            control.should_training_stop = True
