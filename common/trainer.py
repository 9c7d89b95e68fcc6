"""The Hugging Face Trainer, fitted to this suite: our batches, our evaluation, checkpoints of just what is trained."""

import math
import time
from pathlib import Path

import numpy as np
import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from . import models
from .batches import GroupedBatches, Loader
from .errors import UserError

WEIGHTS = "trainable.safetensors"


def span_loss(out, labels: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of first and last answer token, summed over a batch: (batch, length) logits, (batch, 2) labels.

    The softmax leaves padding out; transformers' own loss does not, so that there a window's loss depends on the
    windows that it happens to share a batch with.
    """
    padding = attention_mask == 0
    logits = torch.stack([out.start_logits, out.end_logits], dim=1).float()
    logits = logits.masked_fill(padding[:, None], torch.finfo(logits.dtype).min)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


class QATrainer(Trainer):
    """Trains for a `Job` (training.py), which predicts and scores for it; `run` is told what happens."""

    def __init__(self, job, run, train, validation, **kwargs):
        super().__init__(train_dataset=train.windows, eval_dataset=validation.windows, **kwargs)
        self.job, self.run, self.validation = job, run, validation
        # That it counts the labels of a step and leaves the division to compute_loss.
        self.model_accepts_loss_kwargs = True
        self.evaluation_seconds, self.first_step = 0.0, 0
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
        out = model(**inputs)
        loss = span_loss(out, labels, inputs["attention_mask"])
        # The processes' gradients are averaged.
        loss = loss * self.args.world_size / num_items_in_batch
        return (loss, out) if return_outputs else loss

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Validation EM and F1; the best weights so far are kept beside the checkpoints."""
        started = time.perf_counter()
        # An untuned threshold of 0 ranks the epochs; the final one is tuned on the epoch that is kept.
        threshold = 0.0 if self.job.version == "v2.0" else None
        model = self.accelerator.unwrap_model(self.model)
        predictions = self.job.predict(model, self.validation, self.data_collator, threshold)
        scores, _ = self.job.scores(predictions, self.validation.examples)
        found = {"eval_f1": scores["f1"], "eval_exact_match": scores["exact_match"]}
        earlier = [entry["eval_f1"] for entry in self.state.log_history if "eval_f1" in entry]
        if self.args.should_save and found["eval_f1"] > max(earlier, default=-1.0):
            best = self.job.output_dir / "best"
            best.mkdir(exist_ok=True)
            models.save_trainable(model, best / (WEIGHTS + ".part"))
            (best / (WEIGHTS + ".part")).replace(best / WEIGHTS)
        self.evaluation_seconds += time.perf_counter() - started
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

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
        if "eval_f1" in logs:
            scores = f"F1 {logs['eval_f1']:.1f}, EM {logs['eval_exact_match']:.1f}"
            self.training_bar.write(f"epoch {state.epoch:.3g}: validation {scores}")


class Reporter(TrainerCallback):
    """Sends the loss curve to MLflow, saves within long epochs, and stops early when asked to."""

    def __init__(self, trainer: QATrainer):
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
            "eval_f1": "validation_f1",
            "eval_exact_match": "validation_exact_match",
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
        scores = [entry["eval_f1"] for entry in state.log_history if "eval_f1" in entry]
        if patience and len(scores) - 1 - int(np.argmax(scores)) >= patience:
            control.should_training_stop = True
