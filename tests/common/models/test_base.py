"""A checkpoint and a technique as a model: each technique on each family learns, saves, loads and merges."""

import pytest
import torch
from peft import PeftModelForQuestionAnswering, get_peft_model
from transformers import (
    AutoModelForQuestionAnswering,
)

from common.models import base as models
from common.models import bundles, initialisation, peft_kinds, saving, trainable
from common.models.families import FAMILIES, uses_segment_ids
from tests.support import learning
from tests.support.cells import (
    ALIKE,
    CLASSIFICATION,
    CONFIGS,
    QA,
    base,
    batch_of,
    build,
    crossed,
    logits,
    loss_of,
    quick,
    refused,
    saved_base,
    shared_base,
    train,
)
from tests.support.peft_types import SLOW
from tests.support.techniques import BY_FILE, EVERY, TECHNIQUES, refusal
from tests.support.techniques import technique as technique_of

CELLS = [
    pytest.param(technique, family, head, marks=() if quick(technique, family, head) else pytest.mark.long)
    for technique in EVERY
    for family in sorted(FAMILIES)
    for head in CONFIGS
    if head in FAMILIES[family].heads and crossed(technique, family, head)
    if refusal(technique, FAMILIES[family], head) is None
]
EVERY_CELL = pytest.mark.parametrize(("technique", "family_name", "head"), CELLS)
FILES_ON_BERT = [
    pytest.param(technique, "bert", QA, marks=pytest.mark.long if technique.split()[1] in SLOW else ())
    for technique in BY_FILE
]
FILES_ON_ALL = [
    pytest.param(technique, family, head, marks=pytest.mark.long)
    for technique in BY_FILE
    for family in sorted(FAMILIES)
    for head in CONFIGS
    # Half of them: a head has little to do with a method.
    if head in FAMILIES[family].heads
    and family not in ("bert", *ALIKE)
    and (head == QA or family == "roberta")
    # Refused when it is put on the model (test_peft_methods.py).
    if not refused(technique, family) and (technique, family) != ("peft TRAINABLE_TOKENS", "bart")
]


@pytest.mark.parametrize(("technique", "family_name", "head"), CELLS + FILES_ON_BERT + FILES_ON_ALL)
def test_trains_and_answers_the_same_after_saving_and_merging(technique, family_name, head, tiny, tmp_path):
    model, tokenizer, batch = build(tiny, technique, family_name, head, read=True)
    start = {name: tensor.clone() for name, tensor in trainable.state(model).items()}
    losses = train(model, batch, 12, learning.rate(technique) if head == QA else 3e-3)
    assert losses[-1] < 0.97 * losses[0]
    moved = {name for name, tensor in trainable.state(model).items() if not tensor.equal(start[name])}
    of_head = {name for name in moved if any(part in name for part in FAMILIES[family_name].heads[head])}
    assert of_head and (moved - of_head or technique == "head")
    still = [
        n
        for n, p in model.named_parameters()
        if p.requires_grad and p.grad is not None and not p.grad.isfinite().all()
    ]
    assert not still

    before = logits(model, batch)
    assert before.shape[1:] == (batch["input_ids"].shape if head == QA else (5, 2))
    labels = tuple(CONFIGS[head].get("id2label", {}).values())
    info = bundles.BundleInfo(
        technique, family_name, tiny(family_name), "", "any", head, {"max_length": 96, "labels": list(labels)}
    )
    method = technique_of(technique).method(FAMILIES[family_name])
    saving.save_bundle(tmp_path / "bundle", info, model, tokenizer, method)
    base_folder = saved_base(tiny, family_name, head)
    # What was taken out of the base is saved as a difference from it. And torch multiplies strided tensors, such as those
    # of layers that take the length first, in another order where the weight is trained.
    same = not hasattr(model, initialisation.START) and not FAMILIES[family_name].length_first
    for merge in (False, True):
        loaded, its_tokenizer, its_info = bundles.load_bundle(tmp_path / "bundle", base_folder, merge=merge)
        after = logits(loaded, batch_of(its_tokenizer, loaded.config, head))
        exact = not merge and same
        torch.testing.assert_close(after, before, atol=0 if exact else 2e-5, rtol=0 if exact else 1e-4)
        assert its_info == info
        assert head == QA or loaded.config.id2label == CONFIGS[head]["id2label"]
    if technique != "standard":
        shared = shared_base(base_folder, info)
        was = {name: tensor.clone() for name, tensor in shared.model.state_dict().items()}
        among, its_tokenizer, _ = bundles.load_bundle(tmp_path / "bundle", shared=shared)
        after = logits(among, batch_of(its_tokenizer, among.config, head))
        torch.testing.assert_close(after, before, atol=0 if same else 2e-5, rtol=0 if same else 1e-4)
        assert all(tensor.equal(was[name]) for name, tensor in shared.model.state_dict().items())
    if technique in BY_FILE:
        unmerged = {*peft_kinds.CANNOT_MERGE, *peft_kinds.PROMPT_TYPES}
        assert bundles.merges(tmp_path / "bundle") == (technique.split()[1] not in unmerged)
    if bundles.merges(tmp_path / "bundle"):
        untouched, _ = base(tiny, family_name, head)
        assert type(loaded) is type(untouched)
        assert loaded.state_dict().keys() == untouched.state_dict().keys()


@EVERY_CELL
def test_segment_ids_change_the_output_and_padding_does_not(technique, family_name, head, tiny):
    model, _, batch = build(tiny, technique, family_name, head)
    model.eval()
    whole = logits(model, batch)
    for row in range(len(batch["input_ids"])):
        n = int(batch["attention_mask"][row].sum())
        alone = logits(model, {k: v[row : row + 1, :n] for k, v in batch.items() if k != "labels"})
        torch.testing.assert_close(whole[:, row : row + 1, :n], alone, atol=1e-5, rtol=1e-4)
    assert ("token_type_ids" in batch) == uses_segment_ids(model.config)
    if head == CLASSIFICATION:
        assert not batch.get("token_type_ids", torch.zeros(1)).any()
    elif uses_segment_ids(model.config):
        without = logits(model, {**batch, "token_type_ids": torch.zeros_like(batch["token_type_ids"])})
        assert (whole - without).abs().max() > 1e-4


@pytest.mark.parametrize("technique", ["lora", "prompt-encoder"])
def test_peft_itself_drops_segment_ids(technique, tiny):
    """The reason for not using PEFT's question-answering model; when this fails, PEFT has fixed it."""
    model, _ = models.load_base(models.resolve_checkpoint(tiny("bert")))
    config = TECHNIQUES[technique]().method(FAMILIES["bert"])
    config.task_type = "QUESTION_ANS"
    plain = get_peft_model(model, config).eval()
    assert type(plain) is PeftModelForQuestionAnswering
    batch = batch_of(models.load_base(models.resolve_checkpoint(tiny("bert")))[1], model.config)
    with torch.no_grad():
        a = plain(**batch)
        b = plain(**{**batch, "token_type_ids": torch.zeros_like(batch["token_type_ids"])})
    assert torch.equal(a.start_logits, b.start_logits)


@pytest.mark.parametrize(
    "family_name", sorted(name for name, family in FAMILIES.items() if QA in family.heads)
)
def test_a_window_has_the_loss_that_it_has_alone(family_name, tiny):
    model, _, batch = build(tiny, "standard", family_name)
    model.eval()
    row = int(batch["attention_mask"].sum(1).argmin())
    n = int(batch["attention_mask"][row].sum())
    alone = {k: v[row : row + 1, :n] for k, v in batch.items()}
    among = {k: v[row : row + 1] for k, v in batch.items()}
    assert n < among["input_ids"].shape[1]
    with torch.no_grad():
        torch.testing.assert_close(loss_of(model, among), loss_of(model, alone))


def test_transformers_itself_lets_padding_into_the_loss(tiny):
    """When this fails, transformers has fixed it."""
    model, tokenizer = models.load_base(models.resolve_checkpoint(tiny("bert")))
    model.eval()
    batch = batch_of(tokenizer, model.config)
    start, end = batch.pop("labels").unbind(1)
    with torch.no_grad():
        whole = model(**batch, start_positions=start, end_positions=end).loss
    batch["labels"] = torch.stack([start, end], dim=1)
    assert not torch.isclose(whole, loss_of(model, batch), rtol=1e-3)


def test_a_second_technique_starts_from_a_fresh_base(tiny):
    first, _, batch = build(tiny, "lora", "bert")
    train(first, batch, 3, 1e-1)
    second, _, _ = build(tiny, "ia3", "bert")
    plain = AutoModelForQuestionAnswering.from_pretrained(tiny("bert"))
    assert not any("lora" in name for name, _ in second.named_parameters())
    weight = "encoder.layer.0.attention.self.key"
    key = next(m for n, m in second.named_modules() if n.endswith(weight))
    assert torch.equal(key.base_layer.weight, plain.get_submodule(f"bert.{weight}").weight)


def test_ia3_is_not_pulled_from_its_scales_by_decay():
    assert TECHNIQUES["ia3"]().weight_decay == 0
