"""Saving what training made: models as folders, and the bases that they share."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from transformers import PreTrainedTokenizerBase

from . import initialisation, methods
from .base import Checkpoint, load_base
from .bundles import BundleInfo, fingerprint, quietly, write_info
from .families import family_of
from .methods import Method
from .virtual_tokens import PromptModel


def save_base(checkpoint: Checkpoint, folder: Path, head: str = "QuestionAnswering", **config: Any) -> str:
    """Write the base that adapters trained on `checkpoint` need; return its fingerprint.

    Its head is zero. Every adapter brings its own head, and a random one would give the same base another fingerprint
    for each seed.
    """
    model, tokenizer = load_base(checkpoint, head, **config)
    with torch.no_grad():
        for name in family_of(model.config.model_type).heads[head]:
            for parameter in model.get_submodule(name).parameters():
                parameter.zero_()
    quietly(model.save_pretrained, folder)
    tokenizer.save_pretrained(folder)
    return fingerprint(folder)


def save_bundle(
    folder: Path,
    info: BundleInfo,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    method: PeftConfig | Method | None = None,
) -> None:
    """Write `bundle.json` and what the technique trained: `adapter/`, or `base/` where it trained all weights.

    method: the technique's, where it is one of this suite; the models of PEFT's know theirs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(method, Method):
        methods.save(method, model, folder / "adapter")
    elif isinstance(model, PeftModel | PromptModel):
        if isinstance(model, PeftModel):
            initialisation.save(model, folder / "adapter")
        else:
            model.save_pretrained(str(folder / "adapter"))
        # PEFT writes an empty model card.
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
    else:
        quietly(model.save_pretrained, folder / "base")
        tokenizer.save_pretrained(folder / "base")
    write_info(folder, info)
