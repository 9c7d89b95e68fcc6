"""Cells of the matrix technique × family × head: tiny models with a technique on them, and batches for them."""

import copy
from functools import cache
from pathlib import Path

import torch

from common.models import base as models
from common.models import bundles, initialisation, saving
from common.models.families import FAMILIES, uses_segment_ids
from common.tasks.batching import Collator
from common.tasks.classification import work
from common.tasks.classification.texts import make_texts
from common.tasks.extractive_qa.windows import make_windows
from common.tasks.extractive_qa.work import span_loss
from tests.support import learning, texts
from tests.support.questions import EXAMPLES
from tests.support.techniques import VARIANTS, refusal
from tests.support.techniques import technique as technique_of

QA, CLASSIFICATION = "QuestionAnswering", "SequenceClassification"
CONFIGS = {
    QA: {},
    CLASSIFICATION: {
        "id2label": {0: "negative", 1: "positive"},
        "label2id": {"negative": 0, "positive": 1},
    },
}


FIRST = ("roberta", "electra", "distilbert", "deberta-v2", "modernbert", "gpt2", "t5")
"""Families whose models are written each in its own way; the others resemble one of them."""


ALIKE = ("xlm-roberta", "camembert", "mt5")
"""Families with the code, names and toy sizes of another one: variants of techniques, and PEFT's types by file, are on that one."""


def crossed(technique: str, family_name: str, head: str) -> bool:
    """Whether a cell is generated: every technique on every family and head, its variants where they may meet other code.

    What a variant changes is in the layers, so that each family has one of its heads, and two families have all.
    """
    if technique not in VARIANTS:
        return True
    return family_name not in ALIKE and (
        head == usual_head(family_name) or family_name in ("bert", "roberta")
    )


def quick(technique: str, family_name: str, head: str | None = None) -> bool:
    """Whether a cell is in the quick tier: every technique on one family, two on each of FIRST, LoRA on a head of the others.

    head: None stands for the family's usual one.
    """
    if family_name == "bert" or family_name in FIRST:
        return family_name == "bert" or technique in ("standard", "lora")
    return technique == "lora" and head in (None, usual_head(family_name))


def usual_head(family_name: str) -> str:
    """What a family is mostly used for: encoders for spans, the others for writing."""
    heads = list(FAMILIES[family_name].heads)
    return heads[0 if FAMILIES[family_name].kind == "encoder" else -1]


def refused(technique: str, family_name: str) -> bool:
    """Whether a type of PEFT's by file is refused for a family, before a weight is read."""
    return refusal(technique, FAMILIES[family_name], usual_head(family_name)) is not None


def _read(folder: str, head: str):
    """(model, tokenizer, state of the random numbers after it) of a checkpoint."""
    torch.manual_seed(0)
    made = models.load_base(models.resolve_checkpoint(folder), head, **CONFIGS.get(head, {}))
    return *made, torch.get_rng_state()


_base = cache(_read)


def base(tiny, family_name: str, head: str = QA, read: bool = False):
    """(model, tokenizer) of a family without a technique, for the caller to change: a copy of one that was read once.

    read: from the disk, to be compared bit for bit with what is read from there: where a tensor begins in memory can decide
    how torch adds up its products.
    """
    model, tokenizer, state = (_read if read else _base)(tiny(family_name), head)
    torch.set_rng_state(state)
    return model if read else copy.deepcopy(model), tokenizer


@cache
def _batch(folder: str, head: str):
    model, tokenizer, _ = _base(folder, head)
    return batch_of(tokenizer, model.config, head)


def build(tiny, technique: str, family_name: str, head: str = QA, read: bool = False, **options):
    """(model with the technique on it, tokenizer, a batch of windows or texts). options: the technique's, where not its own.

    read: as in `base`.
    """
    model, tokenizer = base(tiny, family_name, head, read)
    family = FAMILIES[family_name]
    batch = dict(_batch(tiny(family_name), head))
    model = models.apply(technique_of(technique, **options).method(family), model, family, head)
    if initialisation.needs_data(model):
        initialisation.from_data(model, span_loss if head == QA else work.label_loss, [batch])
    return model, tokenizer, batch


def saved_base(tiny, family_name: str, head: str = QA) -> Path:
    """The folder of the base that adapters of a family need; it is written once for all techniques."""
    folder = Path(tiny(family_name)).with_name(f"{Path(tiny(family_name)).name}-{head}")
    if not folder.exists():
        checkpoint, part = models.resolve_checkpoint(tiny(family_name)), folder.with_suffix(".part")
        saving.save_base(checkpoint, part, head, **CONFIGS.get(head, {}))
        part.rename(folder)
    return folder


_SHARED: dict[Path, bundles.SharedBase] = {}


def shared_base(folder: Path, info: bundles.BundleInfo) -> bundles.SharedBase:
    """A saved base in memory, one for all techniques, as a server holds it."""
    if folder not in _SHARED:
        _SHARED[folder] = bundles.load_shared_base(folder, info)
    return _SHARED[folder]


def batch_of(tokenizer, config, head: str = QA):
    segment_ids = uses_segment_ids(config)
    if head == QA:
        items = make_windows(tokenizer, EXAMPLES, max_length=96, doc_stride=16, segment_ids=segment_ids)
    else:
        items = make_texts(
            tokenizer,
            texts.make_texts(8)[3:],
            max_length=64,
            segment_ids=segment_ids,
            names=("negative", "positive"),
        )
    return Collator(tokenizer.pad_token_id)([items[i] for i in range(len(items))])


def train(model, batch, steps, learning_rate):
    return learning.train(model, lambda: loss_of(model, batch), steps, learning_rate)


def loss_of(model, batch):
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    loss = span_loss if batch["labels"].ndim == 2 else work.label_loss
    return loss(model, inputs, batch["labels"]) / batch["labels"].numel()


@torch.no_grad()
def logits(model, batch):
    """(2, batch, length) for answers, (1, batch, classes) for texts."""
    out = model(**{k: v for k, v in batch.items() if k != "labels"})
    return out.logits[None] if "logits" in out else torch.stack([out.start_logits, out.end_logits])
