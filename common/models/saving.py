"""What training leaves of a model: saved models as folders, and the bases that they share."""

from pathlib import Path

import torch
from peft import PeftModel

from .base import Checkpoint, load_base
from .bundles import BundleInfo, fingerprint, quietly, write_info
from .families import family_of
from .virtual_tokens import PromptModel


def save_base(checkpoint: Checkpoint, folder: Path, head: str = "QuestionAnswering", **config) -> str:
    """Write the base that adapters trained on `checkpoint` need; returns its fingerprint.

    Its head is zero: every adapter brings its own, and a random one would make the same base a new one for each seed.
    """
    model, tokenizer = load_base(checkpoint, head, **config)
    with torch.no_grad():
        for name in family_of(model.config.model_type).heads[head]:
            for parameter in model.get_submodule(name).parameters():
                parameter.zero_()
    quietly(model.save_pretrained, folder)
    tokenizer.save_pretrained(folder)
    return fingerprint(folder)


def save_bundle(folder: Path, info: BundleInfo, model, tokenizer) -> None:
    """Write `bundle.json` and what the technique trained: `adapter/`, or `base/` where it trained all weights."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel | PromptModel):
        model.save_pretrained(str(folder / "adapter"))
        # PEFT writes a model card with nothing in it.
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
    else:
        quietly(model.save_pretrained, folder / "base")
        tokenizer.save_pretrained(folder / "base")
    write_info(folder, info)
