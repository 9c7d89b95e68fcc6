"""What a model predicts for a split of the data, and how good that is: asked at each epoch's end and in the final test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments

from ..models.cpu_adapters import updates_held
from ..tasks.interface import Decision, Task
from .settings import RunArgs

Example = dict[str, Any]
"""A row of prepared data."""

Collator = Callable[[list], dict[str, torch.Tensor]]
"""From a list of a dataset's items to a batch with `labels`."""


@dataclass(frozen=True)
class Split:
    """The examples of one part of the data and the model's inputs made of them."""

    examples: Sequence[Example]
    features: Any
    """A torch Dataset over model inputs that also has `lengths`."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions and scores of a run's model."""

    task: Task
    args: RunArgs
    version: str
    """The data's version."""
    collator: Collator
    autocast: torch.dtype | None
    """Precision of the forward pass; None: that of the weights."""
    arguments: TrainingArguments
    """Names the device, and this process among those of a launcher."""

    def outputs(self, model: torch.nn.Module, split: Split, progress: str | None = None) -> Any:
        """The model's outputs for a split; under a launcher each process computes its share, and all get the whole.

        progress: title of the progress bar, which the first process shows.
        """
        index, processes = self.arguments.process_index, self.arguments.world_size
        device = self.arguments.device.type
        with torch.autocast(device, self.autocast, enabled=self.autocast is not None), updates_held(model):
            share = self.task.outputs(
                model,
                split.features,
                self.collator,
                self.args,
                (index, processes),
                progress if index == 0 else None,
            )
        return self.task.join(_gather(share, processes))

    def predictions(self, outputs: Any, split: Split, decision: Decision) -> list:
        """The predictions that are read off a model's outputs, one for each example."""
        return self.task.predictions(outputs, split.features, split.examples, self.args, decision)

    def undecided(self, outputs: Any, split: Split) -> list:
        """Predictions before anything is tuned: they rank the epochs, and the final decision is derived from them."""
        return self.predictions(outputs, split, 0.0 if self.version == "v2.0" else None)

    def decide(self, undecided: list, split: Split) -> Decision:
        """What validation decides, such as the threshold of "no answer"; None: nothing."""
        return self.task.decide(undecided, split.examples, self.version)

    def scores(
        self, predictions: list, examples: Sequence[Example]
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """(figures in percent, {metric: the score of each example from 0 to 1})."""
        return self.task.score(predictions, examples, self.version)


def _gather(share: Any, processes: int) -> list:
    """The outputs of every process."""
    if processes == 1:
        return [share]
    parts: list[Any] = [None] * processes
    torch.distributed.all_gather_object(parts, share)
    return parts
