"""The trained weights at the ends of the last epochs, and their mean.

Averaging the weights of one training's end often generalises better than its last point (Izmailov et al., 2018,
https://arxiv.org/abs/1803.05407).
"""

import math
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..atomic import atomic_write
from ..models import trainable
from ..scoring.names import LABELS
from . import checkpoints

if TYPE_CHECKING:
    from .trainer import TaskTrainer

_FILE = re.compile(r"epoch-(\d+)\.safetensors")


def choices(epochs: float, average_last: int | None) -> int:
    """How many models validation chooses from: one an epoch, and the mean of the last ones where it is tried."""
    return max(1, math.ceil(epochs)) + bool(average_last)


class LastEpochs:
    """Files epoch-STEP.safetensors in a folder, of the `count` last epochs; checkpoints hold links to them."""

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count
        self.mean = folder / "mean.safetensors"

    def keep(self, model: torch.nn.Module, step: int) -> None:
        """Write a model's trained weights at the end of an epoch, and remove those that lie too far back."""
        self.folder.mkdir(exist_ok=True)
        with atomic_write(self.folder / f"epoch-{step}.safetensors") as part:
            trainable.save(model, part)
        for old in _files(self.folder)[: -self.count]:
            old.unlink()

    def link_into(self, checkpoint: Path) -> None:
        """Put the files into a checkpoint."""
        for file in _files(self.folder):
            checkpoints.link(file, checkpoint / file.name)

    def restore(self, checkpoint: Path | None) -> None:
        """Go back to the files of a checkpoint; without one, to none."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for file in _files(checkpoint) if checkpoint else []:
            checkpoints.link(file, self.folder / file.name)

    def write_mean(self) -> int:
        """Write the mean of the files, each number of it computed in double precision; returns how many there are."""
        files = _files(self.folder)
        totals: dict[str, torch.Tensor] = {}
        for file in files:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    tensor = tensors.get_tensor(name).double()
                    totals[name] = totals[name].add_(tensor) if name in totals else tensor
        with atomic_write(self.mean) as part:
            save_file({name: (total / len(files)).float() for name, total in totals.items()}, part)
        return len(files)


def try_mean(trainer: "TaskTrainer", epochs: LastEpochs, best: Path) -> None:
    """Validate the mean of a finished training's last epochs; if it scores higher than every epoch, it replaces the best.

    best: the file of the best epoch's weights.
    """
    writes = trainer.args.should_save
    count = epochs.write_mean() if writes else 0
    trainer.accelerator.wait_for_everyone()
    model = trainer.accelerator.unwrap_model(trainer.model)
    trainable.load(model, epochs.mean)
    (found, outputs), highest = trainer.validated(model), max(trainer.past_scores())
    metric = trainer.metrics[0]
    if better := found[metric] > highest:
        trainer.best_outputs = outputs
    trainer.run_log.log_metrics({f"mean_validation_{name}": value for name, value in found.items()})
    trainer.run_log.set_tags({"weights": f"mean of the last {count} epochs" if better else "best epoch"})
    if not writes:
        return
    if better:
        checkpoints.link(epochs.mean, best)
    print(
        f"Mean of the last {count} epochs: validation {LABELS[metric]} {found[metric]:.1f}, {highest:.1f} at the best epoch: "
        f"{'it is kept' if better else 'the epoch is kept'}."
    )


def _files(folder: Path) -> list[Path]:
    """The files of a folder, the earliest first."""
    found = [(int(match[1]), file) for file in folder.iterdir() if (match := _FILE.fullmatch(file.name))]
    return [file for _, file in sorted(found)]
