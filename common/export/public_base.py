"""Whether the base of an adapter is a model of the Hugging Face hub that others can fetch: the same weights, to the bit."""

import re
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from ..errors import UserError
from ..models import base, saving
from ..models.bundles import fingerprint
from ..scratch import scratch
from .source import Stored

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def found(stored: Stored) -> dict[str, Any] | None:
    """`name`, `revision` (a commit) and `config` (what its class needs beside it) of an adapter's base on the hub.

    None where the base must lie beside the adapter: a folder, a packaged or changed model, or one that neither the cache nor
    the hub gives. It is made anew from the hub's files, as training made it, and must be the base that the adapter needs.
    """
    name = stored.info.checkpoint
    if not _HUB_ID.fullmatch(name) or name.startswith(("embedded", ".")) or Path(name).exists():
        return None
    config = head_config(stored)
    try:
        checkpoint = base.resolve_checkpoint(name)
        with scratch() as folder:
            made = saving.save_base(checkpoint, folder / "base", stored.info.head, **config)
    except UserError:
        return None
    if made != fingerprint(stored.bundle / "base"):
        return None
    if stored.info.head == "QuestionAnswering":
        config = base.HEADS[stored.info.head]
    return {"name": name, "revision": checkpoint.revision, "config": config}


def head_config(stored: Stored) -> dict[str, Any]:
    """The fields of the base's config that the data decided: the names of the labels, and how many there are of a text."""
    if stored.info.head != "SequenceClassification":
        return {}
    config = AutoConfig.from_pretrained(stored.bundle / "base", trust_remote_code=False)
    several = {"problem_type": config.problem_type} if config.problem_type else {}
    return {"id2label": dict(config.id2label), "label2id": dict(config.label2id)} | several
