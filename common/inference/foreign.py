"""Anybody's model, as transformers saves one, made a saved model of this project: it answers by the same windows and decoding."""

from pathlib import Path
from typing import Any

from ..errors import NotHere, UserError
from ..tasks.interface import Task
from ..tasks.table import TASKS

LENGTHS = {"max_length": 384, "doc_stride": 128, "max_answer_length": 30, "n_best": 20}
"""Of windows and answers, in tokens: what models for SQuAD are trained and evaluated with. A model with fewer positions gets
shorter windows."""

LONGEST_TEXT = 512
"""Tokens of a text that is classified."""


def save(name: str, folder: Path, *, pairs: bool = False) -> str:
    """Write a model for question answering or classification, a folder or a model of the hub, as a saved model; returns what
    decides its weights: a digest of the files, or the commit.

    Any family that transformers knows will do. No code of the model's own is run. It always gives an answer, unless a
    request sets `null_threshold`. pairs: whether a classifier takes pairs of texts, which its files do not say. UserError
    if there is no such model, it has no trained head for either task, or it needs more than the tokens of a text.
    """
    from ..models import base, foreign, saving
    from ..models.bundles import BundleInfo
    from ..training import fingerprint

    try:
        checkpoint = base.resolve_checkpoint(name)
        config = base.load_config(checkpoint)
        task, head = _task(name, config)
        longest = LENGTHS["max_length"] if task.data == "qa" else LONGEST_TEXT
        model, tokenizer, longest = foreign.load(checkpoint, head, longest)
    except NotHere:
        raise NotHere(
            f"{name} leads to no logged model of the store (models:/NAME@ALIAS, runs:/ID/model), to no folder, and to no model "
            "in the hub's cache; the hub cannot be reached."
        ) from None
    except UserError as error:
        raise UserError(str(error).removeprefix("--model_checkpoint ")) from None
    settings = _settings(model.config, task, longest) | (
        {"pairs": True} if pairs and task.data != "qa" else {}
    )
    info = BundleInfo("Standard", config.model_type, checkpoint.name, "", task.name, head, settings)
    saving.save_bundle(folder, info, model, tokenizer)
    return fingerprint.checkpoint(checkpoint)


def _task(name: str, config: Any) -> tuple[Task, str]:
    """The task that a saved model was trained for, and its head; UserError where it is none that can be asked."""
    from ..models.foreign import heads

    several = config.problem_type == "multi_label_classification"
    for head in heads(config):
        for task in TASKS.values():
            if task.onnx_outputs and task.head("encoder") == head and task.multi_label == several:
                if task.data != "qa":
                    _check_labels(name, config, task)
                return task, head
    built = (config.architectures or ["nothing"])[0]
    raise UserError(
        f"{name} is a {built}: it has no head that answers questions or classifies texts; train it first, or name another "
        "model."
    )


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
