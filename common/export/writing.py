"""The files of an exported folder."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ..models.bundles import BundleInfo, load_bundle, quietly
from .source import Stored


@dataclass(frozen=True)
class Written:
    """What was written. tokenizer: the folder's."""

    tokenizer: PreTrainedTokenizerBase


def merged(stored: Stored, folder: Path) -> Written:
    """Write a plain model of transformers, whatever was trained in its weights."""
    model, tokenizer, info = load_bundle(stored.bundle, merge=True)
    quietly(model.save_pretrained, folder)
    for_others(tokenizer, info).save_pretrained(folder)
    return Written(tokenizer)


def for_others(tokenizer: PreTrainedTokenizerBase, info: BundleInfo) -> PreTrainedTokenizerBase:
    """The tokenizer itself, which from here on knows how long an input was in training, and on which side it is padded.

    Which inputs its model takes it knows since it was first loaded (`models/base.py`).
    """
    known = {
        "model_max_length": info.settings["max_length"],
        # A text behind which something is written must end where its row ends.
        "padding_side": "left" if info.head == "CausalLM" else "right",
    }
    for name, value in known.items():
        setattr(tokenizer, name, value)
    tokenizer.init_kwargs |= known
    return tokenizer


WRITERS = {"merged": merged}
"""Format → what writes its folder."""
