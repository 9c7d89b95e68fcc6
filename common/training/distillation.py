"""A teacher's logits for the training data, computed once before training, and the loss that also follows them.

loss = (1 - w) task loss + w T² KL(teacher || student), both at temperature T (Hinton et al., 2015,
https://arxiv.org/abs/1503.02531). T² keeps the gradients of the second part as large as at T = 1.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import TrainingArguments

from ..atomic import atomic_write
from ..data.rows import AT_ONCE, Rows
from ..errors import UserError
from ..files import sha256, write_json
from ..models.families import uses_segment_ids
from ..tasks.batching import Batch, evaluating, length_sorted_batches, tokens_per_batch
from ..tasks.interface import Loss, Task
from .evaluation import Collator, Evaluation, Split
from .features import training_features
from .planning import Plan
from .settings import RunArgs
from .teachers import Opened, Teacher, check_fit, opened, own_windows

FILE = "teacher.npy"
"""In the run's folder: the teacher's logits, float32; beside it, in teacher.json, their sha256."""

TAUGHT = "taught"
"""The name of the teacher's logits in items and batches."""


class TaughtFeatures(torch.utils.data.Dataset):
    """Features whose items also have the teacher's logits, read from a file that is mapped into memory.

    file: rows of logits, one for each token of every window where `by_token`, else one for each item.
    """

    def __init__(self, features: Any, file: Path, by_token: bool):
        self.features, self.lengths = features, features.lengths
        self.example_index = features.example_index
        self._logits = np.load(file, mmap_mode="r", allow_pickle=False)
        self._bounds = _bounds(features, by_token)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, i: int) -> dict[str, Any]:
        begin, end = self._bounds[i : i + 2]
        return self.features[i] | {TAUGHT: np.array(self._logits[begin:end])}


def _bounds(features: Any, by_token: bool) -> np.ndarray:
    """(items + 1,) the row at which the logits of each item begin, and the end."""
    rows = features.lengths if by_token else np.ones(len(features), dtype=np.int64)
    return np.concatenate([[0], np.cumsum(rows)])


def with_taught(collator: Collator) -> Collator:
    """A collator that also pads the teacher's logits, where items have some: (batch, length, 2) or (batch, 1, classes)."""

    def collate(items: list) -> Batch:
        batch = collator(items)
        if TAUGHT in items[0]:
            rows = [torch.from_numpy(item[TAUGHT]) for item in items]
            batch[TAUGHT] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return batch

    return collate


def loss_of(task: Task, own: Loss, args: RunArgs) -> Loss:
    """The loss that follows the teacher in batches that have its logits. own: the task's loss."""
    weight, temperature = args.distillation_weight, args.distillation_temperature

    def loss(model: Any, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        taught = batch[TAUGHT]
        inputs = {name: tensor for name, tensor in batch.items() if name != TAUGHT}
        kept: list[Any] = []

        def watched(**given: torch.Tensor) -> Any:
            kept.append(model(**given))
            return kept[-1]

        hard = own(watched, inputs, labels)
        soft = task.divergence(kept[-1], taught, inputs["attention_mask"], temperature)
        return (1 - weight) * hard + weight * temperature**2 * soft

    return loss


def taught(
    planned: Plan,
    train: Split,
    evaluation: Evaluation,
    tokenizer: Any,
    config: Any,
    arguments: TrainingArguments,
) -> Split:
    """The training data with the teacher's logits; they are computed, once, where the run's folder does not hold them whole.

    tokenizer, config: the student's. Random numbers are drawn on as if nothing had happened.
    """
    file, by_token = planned.output_dir / FILE, planned.task.needs_offsets
    with arguments.main_process_first(desc="teacher"):
        if arguments.process_index == 0 and not _whole(file):
            with torch.random.fork_rng(), opened(_teacher(planned), planned) as teacher:
                # A large teacher takes longer here than its student's first epoch.
                with (
                    tqdm(desc="teacher", total=len(train.features), leave=False) as bar,
                    atomic_write(file) as part,
                ):
                    if check_fit(planned, teacher, tokenizer):
                        logits = _carried_over(planned, train, teacher, evaluation, tokenizer, config, bar)
                    else:
                        features = _inputs(planned, train, teacher, tokenizer, config)
                        logits = _logits(planned, teacher, teacher.network(), features, evaluation, bar)
                    _write(part, train.features, by_token, logits)
            write_json(file.with_suffix(".json"), {"sha256": sha256(file)})
    return replace(train, features=TaughtFeatures(train.features, file, by_token))


def _teacher(planned: Plan) -> Teacher:
    assert planned.teacher is not None
    return planned.teacher


def _whole(file: Path) -> bool:
    """Whether the file is there as it was written."""
    try:
        return bool(json.loads(file.with_suffix(".json").read_text())["sha256"] == sha256(file))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _inputs(planned: Plan, train: Split, teacher: Opened, tokenizer: Any, config: Any) -> Any:
    """The training data as the teacher takes it: windows of the same tokens, texts of its own."""
    if planned.task.needs_offsets and uses_segment_ids(config) == uses_segment_ids(teacher.config):
        return train.features
    assert isinstance(train.examples, Rows)
    found = training_features(
        replace(planned, checkpoint=teacher.checkpoint), teacher.tokenizer, teacher.config, train.examples
    )
    if len(found) != len(train.features):
        raise UserError(f"--teacher {teacher.checkpoint.name} reads the data in other windows: name another.")
    return found


def _carried_over(
    planned: Plan,
    train: Split,
    teacher: Opened,
    evaluation: Evaluation,
    tokenizer: Any,
    config: Any,
    bar: tqdm,
) -> Iterator[tuple[int, np.ndarray]]:
    """(item, its logits (rows, width)) for every item of the student's, from a teacher that reads its own tokens.

    Some examples at a time: what lies in memory does not grow with the data.
    """
    task, network, item = planned.task, teacher.network(), 0
    for begin in range(0, len(train.examples), AT_ONCE):
        examples = train.examples[begin : begin + AT_ONCE]
        to = task.features(tokenizer, config, examples, planned.args)
        of = task.features(teacher.tokenizer, teacher.config, examples, own_windows(planned, teacher))
        bar.total += len(of) - len(to)
        given = dict(_logits(planned, teacher, network, of, evaluation, bar))
        for rows in task.carried_over([given[i] for i in range(len(of))], of, to, planned.args):
            assert len(rows) == train.features.lengths[item]
            yield item, rows
            item += 1


def _logits(
    planned: Plan,
    teacher: Opened,
    network: torch.nn.Module,
    features: Any,
    evaluation: Evaluation,
    bar: tqdm,
) -> Iterator[tuple[int, np.ndarray]]:
    """(item, its logits (rows, width)) for every item, in batches of similar length. network: the teacher's."""
    device = evaluation.arguments.device
    network = network.to(device)
    collator = planned.task.collator(teacher.tokenizer, teacher.config)
    order = [list(teacher.labels).index(label) for label in planned.record.labels]
    autocast = torch.autocast(device.type, evaluation.autocast, enabled=evaluation.autocast is not None)
    with torch.inference_mode(), autocast, evaluating(network):
        for indices in length_sorted_batches(features.lengths, tokens_per_batch(network, device)):
            batch = collator([features[int(i)] for i in indices])
            inputs = {name: t.to(device) for name, t in batch.items() if name != "labels"}
            found = planned.task.taught(network(**inputs)).float().cpu().numpy()
            bar.update(len(indices))
            for i, logits in zip(indices, found, strict=True):
                yield int(i), logits[: features.lengths[i]] if logits.ndim == 2 else logits[None, order]


def _write(file: Path, features: Any, by_token: bool, logits: Iterator[tuple[int, np.ndarray]]) -> None:
    bounds, mapped = _bounds(features, by_token), None
    for i, rows in logits:
        if mapped is None:
            shape = int(bounds[-1]), rows.shape[1]
            mapped = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
            _reserve(file)
        mapped[bounds[i] : bounds[i + 1]] = rows
    assert mapped is not None
    mapped.flush()


def _reserve(file: Path) -> None:
    """Take the room that a file needs: OSError where the disk is full, which would kill a process that writes to the map."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as held:
            os.posix_fallocate(held.fileno(), 0, file.stat().st_size)
