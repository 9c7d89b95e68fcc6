"""Callbacks of the trainer: they show progress, log curves, save within long epochs and stop a training that diverges."""

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer_callback import ProgressCallback, TrainerState

from ..scoring.names import LABELS

if TYPE_CHECKING:
    from .trainer import TaskTrainer

DIVERGED = 10.0
"""A loss that is this many times as high as at the beginning does not recover."""


class Progress(ProgressCallback):
    """A progress bar with the loss on it and a line for each evaluation, instead of a line for every logged step."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
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

    def __init__(self, trainer: "TaskTrainer"):
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.hook is not None:
            self.trainer.hook.begin(state.max_steps)
        self.trainer.continue_curve()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.begin_step()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.after_optimizer()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The end of an epoch is evaluated before it is kept: a run that went on from a checkpoint in between would not evaluate.
        if state.epoch == int(state.epoch) or state.global_step >= state.max_steps:
            return
        if state.global_step % self.trainer.options.save_steps == 0 or self.trainer.stop.number is not None:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.stop.number is not None:
            self.trainer.stop.leave()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        names = {
            "loss": "train_loss",
            "learning_rate": "learning_rate",
            "grad_norm": "grad_norm",
            **{f"eval_{metric}": f"validation_{metric}" for metric in self.trainer.metrics},
        }
        logs = logs or {}
        values = {names[name]: value for name, value in logs.items() if name in names}
        if values:
            self.trainer.run_log.log_metrics(values, step=state.global_step)
        self.trainer.check_losses()
        if "loss" in logs:
            first = next(entry["loss"] for entry in state.log_history if "loss" in entry)
            # A model that knows the answers already begins near 0, and may well rise from there.
            if logs["loss"] > DIVERGED * max(first, 2.0):
                self.trainer.stop_diverged(
                    f"is {logs['loss']:.4g} after {first:.4g} at the beginning",
                    state.global_step - 1,
                    self.trainer.batches_of_step - 1,
                    logs["learning_rate"],
                )

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.out_of_patience(state.log_history):
            control.should_training_stop = True
