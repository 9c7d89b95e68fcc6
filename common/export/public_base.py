"""Whether the base of a model is a model of the Hugging Face hub that others can fetch: the same weights, to the bit."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from ..errors import UserError
from ..models import base, saving
from ..models.bundles import fingerprint
from ..scratch import scratch
from .source import Stored

_PACKAGED = ("embedded", "embedded-distilbert")


def named_so(stored: Stored) -> bool:
    """Whether the checkpoint's name may be one of the hub's: it is written like one, and no packaged model or folder has it."""
    name = stored.info.checkpoint
    return base.is_hub_id(name) and name not in _PACKAGED and not Path(name).exists()


def commit(stored: Stored) -> str | None:
    """The commit of the hub whose model is the base beneath a technique.

    None for a folder, a packaged or changed model, or one that neither the cache nor the hub gives; also where all weights
    were trained, so that there is no base. It is made anew from the hub's files, as training made it, and must be the same.
    """
    if not named_so(stored) or not (stored.bundle / "adapter").is_dir():
        return None
    try:
        checkpoint = base.resolve_checkpoint(stored.info.checkpoint)
        with scratch() as folder:
            made = saving.save_base(checkpoint, folder / "base", stored.info.head, **head_config(stored))
    except UserError:
        return None
    return checkpoint.revision if made == fingerprint(stored.bundle / "base") else None


def found(stored: Stored) -> dict[str, Any] | None:
    """`name`, `revision` (a commit) and `config` (what its class needs beside it) of an adapter's base on the hub.

    None where the base must lie beside the adapter: others would not find it (`commit`), or it writes.
    """
    # The hub's files bring rules of writing along, such as BART's beams and forced words. Answers were trained and scored
    # without them, and only the stored base lacks them.
    if stored.info.head in ("CausalLM", "Seq2SeqLM"):
        return None
    revision = commit(stored)
    if revision is None:
        return None
    config = head_config(stored)
    if stored.info.head == "QuestionAnswering":
        config = base.HEADS[stored.info.head]
    return {"name": stored.info.checkpoint, "revision": revision, "config": config}


def head_config(stored: Stored) -> dict[str, Any]:
    """The fields of the base's config that the data decided: the names of the labels, and how many there are of a text."""
    if stored.info.head != "SequenceClassification":
        return {}
    config = AutoConfig.from_pretrained(stored.bundle / "base", trust_remote_code=False)
    several = {"problem_type": config.problem_type} if config.problem_type else {}
    return {"id2label": dict(config.id2label), "label2id": dict(config.label2id)} | several
