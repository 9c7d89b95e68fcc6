"""Whether an exported folder gives, without this project, the logits that the stored model gives within it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from .. import isolated
from ..errors import UserError
from ..models.foreign import TOLERANCE
from . import opened_alone, source
from .source import Stored
from .writing import FP32, Written

TIMEOUT = 1800
"""Seconds within which the folder must open and answer."""

_SENTENCE = "The first engine was built in 1712, and it pumped water out of a coal mine. "
QUESTION = "When was the first engine built?"
TEXTS = (_SENTENCE, "No.", _SENTENCE * 100)
"""Texts of which the last one is longer than most windows."""


def rows_of(stored: Stored) -> list[list[str]]:
    """What both are asked: questions with contexts, texts, or pairs of texts."""
    pairs = stored.info.head == "QuestionAnswering" or bool(stored.info.settings.get("pairs"))
    return [[QUESTION, text] if pairs else [text] for text in TEXTS]


def expected(stored: Stored) -> dict[str, torch.Tensor]:
    """What the stored model reads and gives, as this project opens it."""
    model, tokenizer, info = source.load(stored)
    return opened_alone.read(
        model, tokenizer, info.head, rows_of(stored), max_length=info.settings["max_length"]
    )


def check(stored: Stored, format: str, folder: Path, written: Written) -> str:
    """A sentence on how close the logits of an exported folder are. UserError if it does not open, reads a text as other
    tokens, or gives other logits."""
    request: dict[str, Any] = {"folder": str(folder), "head": stored.info.head, "rows": rows_of(stored)}
    if format == "adapter":
        request["base"] = written.hub_base or {"name": str(folder / "base")}
    if format == "onnx":
        request["network"] = str(folder / FP32)
    # A damaged model is called so before its folder is.
    wanted = expected(stored)
    return compared(stored.name, wanted, in_fresh_process(request, stored.name))


def compared(name: str, wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> str:
    """The sentence of `check`, or its UserError."""
    furthest = 0.0
    for key, tensor in wanted.items():
        other = found[key]
        if tensor.shape != other.shape or (key.endswith("input_ids") and not tensor.equal(other)):
            raise UserError(
                f"{name} was not exported: the folder's tokenizer reads a text as other tokens than the stored model's does."
            )
        if not key.endswith("input_ids"):
            apart = (tensor - other).abs().max().item()
            furthest = max(furthest, apart)
            if not torch.allclose(tensor, other, **TOLERANCE):
                raise UserError(
                    f"{name} was not exported: opened without this project, the folder gives other logits (up to {apart:.2g} apart)."
                )
    rows = len({key.partition(".")[0] for key in wanted})
    return f"Opened in a process without this project, it gives the same logits for {rows} texts (at most {furthest:.1e} apart)."


def in_fresh_process(request: Mapping[str, Any], name: str) -> dict[str, torch.Tensor]:
    """The result of `opened_alone` for a request, in a process that has neither this package nor the hub; its cache only where
    the base is a model of the hub."""
    of_hub = "revision" in request.get("base", {})
    try:
        return load(isolated.answer(opened_alone.__file__, request, timeout=TIMEOUT, hub_cache=of_hub))
    except isolated.NoAnswer as error:
        raise UserError(
            f"{name} was not exported: without this project its folder does not open ({str(error).rstrip('.')})."
        ) from None
