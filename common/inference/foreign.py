"""Anybody's model, as transformers saves one, made a saved model of this project: it answers by the same windows and decoding."""

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import NotHere, UserError
from ..tasks.interface import Task
from ..tasks.table import TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..models.base import Checkpoint

LENGTHS = {"max_length": 384, "doc_stride": 128, "max_answer_length": 30, "n_best": 20}
"""Of windows and answers, in tokens: what models for SQuAD are trained and evaluated with. A model with fewer positions gets
shorter windows."""

LONGEST_TEXT = 512
"""Tokens of a text that is classified."""


@dataclass(frozen=True)
class Opened:
    """Anybody's model, opened: what the project's own saved models hold."""

    checkpoint: "Checkpoint"
    task: Task
    head: str
    model: "PreTrainedModel"
    """In float32, with an adapter in its weights."""
    tokenizer: "PreTrainedTokenizerBase"
    longest: int
    """Tokens of an input: what models for the task are usually asked with, or fewer."""
    content: str
    """What decides the weights: a digest of the files, or the commit; with an adapter also its digest."""
    trained: int
    """Parameters that the adapter holds; 0 without one."""


def open_(name: str | None, adapter: "str | PathLike[str] | None" = None) -> Opened:
    """A model for question answering or classification: a folder, or a model of the hub.

    Any family that transformers knows will do. No code of the model's own is run. adapter: the folder of an adapter, as PEFT
    saves one, that is merged into the model; without a name, into the base that its config names. UserError if there is no
    such model, it has no trained head for either task, or it needs more than the tokens of a text.
    """
    if name is None and adapter is None:
        raise UserError("No model is named: name one, or an adapter whose config names its base.")
    from ..models import base, foreign
    from ..models.families import usable_positions
    from ..training import fingerprint, planning
    from .foreign_adapters import Adapter

    put_on = Adapter(Path(adapter)) if adapter is not None else None
    name = name or (put_on.base if put_on else "")
    try:
        # A model of the store is a base for adapters alone: `models.load` opens it otherwise.
        checkpoint = planning.resolve_checkpoint(name) if put_on else base.resolve_checkpoint(name)
        if put_on:
            model, tokenizer = put_on.merged(checkpoint)
            task, head = _task(name, [put_on.head], model.config)
            room = usable_positions(model.config)
            longest = min(_longest(task), room or _longest(task))
        else:
            config = base.load_config(checkpoint)
            task, head = _task(name, foreign.heads(config), config)
            model, tokenizer, longest = foreign.load(checkpoint, head, _longest(task))
    except NotHere:
        raise NotHere(
            f"{name} leads to no logged model of the store (models:/NAME@ALIAS, runs:/ID/model), to no folder, and to no model "
            "in the hub's cache; the hub cannot be reached."
        ) from None
    except UserError as error:
        raise UserError(str(error).removeprefix("--model_checkpoint ")) from None
    content = fingerprint.checkpoint(checkpoint) + (f" adapter {put_on.content}" if put_on else "")
    trained = sum(tensor.numel() for tensor in put_on.weights.values()) if put_on else 0
    return Opened(checkpoint, task, head, model, tokenizer, longest, content, trained)


def save(
    name: str | None, folder: Path, *, pairs: bool = False, adapter: "str | PathLike[str] | None" = None
) -> str:
    """Write what `open_` opens as a saved model of this project; returns what decides its weights.

    It always gives an answer, unless a request sets `null_threshold`. pairs: whether a classifier takes pairs of texts,
    which its files do not say.
    """
    from ..models import saving
    from ..models.bundles import BundleInfo

    found = open_(name, adapter)
    config = found.model.config
    settings = _settings(config, found.task, found.longest)
    if pairs and found.task.data != "qa":
        settings["pairs"] = True
    info = BundleInfo(
        "Standard", config.model_type, found.checkpoint.name, "", found.task.name, found.head, settings
    )
    saving.save_bundle(folder, info, found.model, found.tokenizer)
    return found.content


def _longest(task: Task) -> int:
    return LENGTHS["max_length"] if task.data == "qa" else LONGEST_TEXT


def _task(name: str, heads: Iterable[str], config: Any) -> tuple[Task, str]:
    """The task that a saved model was trained for, and its head, the first of these that belongs to one; UserError where it is
    none that can be asked."""
    for head in heads:
        if task := _task_with(head, config):
            if task.data != "qa":
                _check_labels(name, config, task)
            return task, head
    built = (config.architectures or ["nothing"])[0]
    raise UserError(
        f"{name} is a {built}: it has no head that answers questions or classifies texts; train it first, or name another "
        "model."
    )


def _task_with(head: str, config: Any) -> Task | None:
    # What a base says of its labels says nothing about answers.
    several = head == "SequenceClassification" and config.problem_type == "multi_label_classification"
    for task in TASKS.values():
        if task.onnx_outputs and task.head("encoder") == head and task.multi_label == several:
            return task
    return None


def _check_labels(name: str, config: Any, task: Task) -> None:
    """UserError for a head that gives a number, such as a similarity, where labels are expected."""
    if config.problem_type == "regression" or config.num_labels < 2 and not task.multi_label:
        raise UserError(
            f"{name} gives a number (regression), and no label: it cannot be asked as a classifier; name another model."
        )


def _settings(config: Any, task: Task, longest: int) -> dict[str, Any]:
    """What answering needs beside the weights, for a model that was not trained here. longest: the longest input in tokens."""
    if task.data != "qa":
        labels = [str(config.id2label[i]) for i in range(config.num_labels)]
        limits = {"thresholds": [0.5] * len(labels)} if task.multi_label else {}
        return {"max_length": longest, "labels": labels, **limits}
    stride = min(LENGTHS["doc_stride"], longest // 4)
    return LENGTHS | {
        "max_length": longest,
        "doc_stride": stride,
        "version": "v1.1",
        "null_threshold": 0.0,
    }
