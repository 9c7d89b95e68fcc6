"""Divergences from a teacher, held against sums written out by hand."""

import math

import pytest
import torch

from common.tasks import distillation


def softmax(values, temperature):
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def kl(teacher, student):
    return sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True) if p)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_windows_divergence_leaves_padding_out(temperature):
    torch.manual_seed(0)
    logits, taught = torch.randn(2, 5, 2), torch.randn(2, 5, 2)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    found = distillation.span_divergence(logits, taught, mask, temperature)
    by_hand = sum(
        kl(
            softmax(taught[row, :length, end].tolist(), temperature),
            softmax(logits[row, :length, end].tolist(), temperature),
        )
        for row, length in enumerate((5, 3))
        for end in range(2)
    )
    assert float(found) == pytest.approx(by_hand, rel=1e-5)
    taught[1, 3:] = 1e6
    assert torch.equal(distillation.span_divergence(logits, taught, mask, temperature), found)


def test_no_gradient_reaches_padding():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 2, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    distillation.span_divergence(logits, torch.randn(2, 4, 2), mask, 2.0).backward()
    assert logits.grad.isfinite().all() and not logits.grad[1, 2:].any() and logits.grad[1, :2].all()


def test_labels_diverge_by_their_classes():
    logits, taught = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[1.0, 0.0, -1.0]])
    by_hand = kl(softmax(taught[0].tolist(), 2.0), softmax(logits[0].tolist(), 2.0))
    assert float(distillation.label_divergence(logits, taught, 2.0)) == pytest.approx(by_hand, rel=1e-5)


def test_label_sets_diverge_by_each_decision():
    logits, taught = torch.tensor([[0.5, -1.0]]), torch.tensor([[1.0, 3.0]])
    by_hand = sum(
        kl(softmax([0.0, t], 2.0), softmax([0.0, s], 2.0))
        for s, t in zip(logits[0].tolist(), taught[0].tolist(), strict=True)
    )
    assert float(distillation.label_set_divergence(logits, taught, 2.0)) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_a_student_like_its_teacher_diverges_by_nothing(temperature):
    torch.manual_seed(0)
    logits = torch.randn(3, 4)
    for divergence in (distillation.label_divergence, distillation.label_set_divergence):
        assert float(divergence(logits, logits, temperature)) == pytest.approx(0, abs=1e-6)
