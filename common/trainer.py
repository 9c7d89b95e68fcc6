"""The Hugging Face Trainer, fitted to this suite: our batches, our evaluation, checkpoints of just what is trained."""

import math
import time
from pathlib import Path

import numpy as np
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from . import models
from .batches import GroupedBatches, Loader
from .errors import UserError
from .gradient_norms import GradientNorms
from .tasks import LABELS

WEIGHTS = "trainable.safetensors"


class TaskTrainer(Trainer):
    """Trains for a `Job` (training.py), which predicts and scores for it; `run` is told what happens."""

    def __init__(self, job, run, train, validation, **kwargs):
        super().__init__(train_dataset=train.features, eval_dataset=validation.features, **kwargs)
        self.job, self.run, self.validation = job, run, validation
        # That it counts the labels of a step and leaves the division to compute_loss.
        self.model_accepts_loss_kwargs = True
        self.evaluation_seconds, self.first_step = 0.0, 0
        self.gradient_norms = GradientNorms() if job.args.gradient_norms else None
        if self.gradient_norms:
            self.add_callback(self.gradient_norms)
        self.add_callback(Reporter(self))
        self.remove_callback(ProgressCallback)
        if self.args.should_log:
            self.add_callback(Progress)

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
        return self.job.work.loss(model, inputs, labels) * self.args.world_size / num_items_in_batch

    def _clip_grad_norm(self, model):
        norm = super()._clip_grad_norm(model)
        if self.gradient_norms:
            self.gradient_norms.total = norm
        return norm

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Validation scores; the best weights so far are kept beside the checkpoints."""
        started = time.perf_counter()
        model = self.accelerator.unwrap_model(self.model)
        predictions = self.job.undecided(model, self.validation, self.data_collator)
        scores, _ = self.job.scores(predictions, self.validation.examples)
        found = {f"eval_{name}": scores[name] for name in self.job.task.metrics}
        if self.args.should_save and found[self.job.chosen_by] > max(self.past_scores(), default=-1.0):
            best = self.job.output_dir / "best"
            best.mkdir(exist_ok=True)
            models.save_trainable(model, best / (WEIGHTS + ".part"))
            (best / (WEIGHTS + ".part")).replace(best / WEIGHTS)
        self.evaluation_seconds += time.perf_counter() - started
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def past_scores(self) -> list[float]:
        """The deciding score of each evaluation so far."""
        name = self.job.chosen_by
        return [entry[name] for entry in self.state.log_history if name in entry]

    def _save(self, output_dir=None, state_dict=None):
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        models.save_trainable(self.accelerator.unwrap_model(self.model), Path(output_dir) / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        models.load_trainable(
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
        self.trainer.first_step = state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.trainer.job.args.save_steps == 0:
            control.should_save = True

    def on_log(self, args, state, control, logs=None, **kwargs):
        names = {
            "loss": "train_loss",
            "learning_rate": "learning_rate",
            "grad_norm": "grad_norm",
            **{f"eval_{metric}": f"validation_{metric}" for metric in self.trainer.job.task.metrics},
        }
        values = {names[name]: value for name, value in (logs or {}).items() if name in names}
        if values:
            self.trainer.run.log_metrics(values, step=state.global_step)
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            raise UserError(
                f"The loss is {logs['loss']} at step {state.global_step} (learning rate {logs.get('learning_rate')}): "
                "training has diverged. Use a lower --learning_rate."
            )

    def on_evaluate(self, args, state, control, **kwargs):
        patience = self.trainer.job.args.early_stopping_patience
        scores = self.trainer.past_scores()
        if patience and len(scores) - 1 - int(np.argmax(scores)) >= patience:
            control.should_training_stop = True
