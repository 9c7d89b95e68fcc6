"""Windows laid end to end give the loss and the gradients of padded ones."""

import pytest
import torch

from common.errors import UserError
from common.models import base, cpu_kernels
from common.models.families import FAMILIES
from common.tasks.extractive_qa.packing import end_to_end, in_rows
from common.tasks.extractive_qa.work import smoothed_span_loss, span_loss, unpadded_span_loss
from common.training.refusals import check_model
from common.training.settings import RunArgs
from tests.common.models.test_cpu_kernels import built
from tests.support.cells import FIRST
from tests.support.techniques import TECHNIQUES

WITH_POSITIONS = ("bert", "roberta", "electra", "distilbert", "albert", "xlm-roberta", "camembert")


def test_tokens_positions_and_bounds_of_a_row():
    batch = {
        "input_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    row = end_to_end(batch, first_position=2)
    assert row["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert row["position_ids"].tolist() == [[2, 3, 4, 2, 3]]
    assert row["cu_seq_lens_q"].tolist() == [0, 3, 5] and row["max_length_q"] == 3
    back = in_rows(row["input_ids"].float(), batch["attention_mask"])
    assert back.tolist() == [[5, 6, 7], [8, 9, 0]]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("technique", ["standard", "lora"])
@pytest.mark.parametrize(
    "family_name",
    [
        pytest.param(name, marks=() if name in (*FIRST, "bert") else pytest.mark.long)
        for name in WITH_POSITIONS
    ],
)
def test_loss_and_gradients_are_those_of_padded_windows(family_name, technique, dropout, tiny, monkeypatch):
    model, batch = built(tiny, family_name, technique)
    labels = batch.pop("labels")
    # Windows whose lengths differ from their neighbours'.
    lengths = torch.linspace(6, batch["input_ids"].shape[1], len(labels)).long()
    lengths = lengths.minimum(batch["attention_mask"].sum(1))
    batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
    labels = labels.minimum(lengths[:, None] - 1)
    model = cpu_kernels.quicken(model).train(bool(dropout))
    taken = []
    if dropout:
        # Nothing is dropped, although the code for dropout runs.
        monkeypatch.setattr(
            cpu_kernels, "draw", lambda shape, p: taken.append(shape) or (torch.ones(shape), torch.zeros(1))
        )
        for module in model.modules():
            for name in ("dropout_prob", "dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, dropout)
            if isinstance(module, torch.nn.Dropout):
                module.p = dropout

    def outcome(loss):
        value = loss(model, batch, labels)
        return value, torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad])

    expected, wanted = outcome(span_loss)
    if dropout:
        taken.clear()
    found, grads = outcome(unpadded_span_loss(FAMILIES[family_name]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want, rtol=1e-4, atol=1e-5)
    if dropout:
        # Attention took each window by itself.
        assert {shape[-1] for shape in taken if shape[-2:-1] == shape[-1:]} >= set(lengths.tolist())


def test_mixed_precision_is_packed_too(tiny):
    model, batch = built(tiny, "bert", "lora")
    labels = batch.pop("labels")
    model = cpu_kernels.quicken(model).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = unpadded_span_loss(FAMILIES["bert"])(model, batch, labels)
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("technique", "family_name", "task"),
    [
        ("prefix-tuning", "bert", "extractive-qa"),
        ("prompt-encoder", "bert", "extractive-qa"),
        ("lora", "deberta-v2", "extractive-qa"),
        ("lora", "gpt2", "extractive-qa"),
        ("lora", "mpnet", "extractive-qa"),
        ("lora", "longformer", "extractive-qa"),
        ("lora", "bart", "extractive-qa"),
        ("lora", "bert", "classification"),
    ],
)
def test_what_cannot_be_packed_is_refused_from_the_config(technique, family_name, task, tiny):
    config = base.load_config(base.resolve_checkpoint(tiny(family_name)))
    args = RunArgs(task=task, max_length=64, pack_batches=True)
    with pytest.raises(UserError, match="--pack_batches is for extractive-qa by encoders"):
        check_model(TECHNIQUES[technique](), args, FAMILIES[family_name], config)


@pytest.mark.parametrize("packed", [False, True])
def test_smoothed_labels_spread_over_real_tokens_alone(packed, tiny):
    model, batch = built(tiny, "bert", "standard")
    model = cpu_kernels.quicken(model)
    labels, smoothing = batch.pop("labels"), 0.2
    model.eval()
    loss = unpadded_span_loss(FAMILIES["bert"], smoothing) if packed else smoothed_span_loss(smoothing)
    with torch.no_grad():
        out, expected = model(**batch), torch.zeros(())
        for logits, label in ((out.start_logits, labels[:, 0]), (out.end_logits, labels[:, 1])):
            for row, mask, place in zip(logits, batch["attention_mask"], label, strict=True):
                real = row[mask == 1]
                expected += torch.nn.functional.cross_entropy(real, place, label_smoothing=smoothing)
        torch.testing.assert_close(loss(model, batch, labels), expected, rtol=1e-4, atol=1e-4)
        assert smoothed_span_loss(0.0)(model, batch, labels).equal(span_loss(model, batch, labels))
