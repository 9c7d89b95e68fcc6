"""How far a student's logits are from a teacher's, for each kind of output: the soft targets of Hinton et al., 2015
(https://arxiv.org/abs/1503.02531). Divergences are summed, as losses are."""

from typing import Any

import torch
from torch.nn.functional import logsigmoid


def span_logits(out: Any) -> torch.Tensor:
    """(batch, length, 2): the logits of the first and the last token of an answer."""
    return torch.stack([out.start_logits, out.end_logits], dim=-1).float()


def span_divergence(
    logits: torch.Tensor, taught: torch.Tensor, mask: torch.Tensor, temperature: float
) -> torch.Tensor:
    """KL(teacher || student) over the real tokens of a window, for first and last token; mask: (batch, length)."""
    real = mask[:, :, None] != 0
    least = torch.finfo(logits.dtype).min
    student = (logits / temperature).masked_fill(~real, least).log_softmax(1)
    teacher = (taught / temperature).masked_fill(~real, least).log_softmax(1)
    return (teacher.exp() * (teacher - student)).masked_fill(~real, 0.0).sum()


def label_divergence(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher || student) over the classes; both (batch, classes)."""
    student, teacher = (logits / temperature).log_softmax(-1), (taught / temperature).log_softmax(-1)
    return (teacher.exp() * (teacher - student)).sum()


def label_set_divergence(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """The same where each class is a decision of its own: KL of each one's yes and no."""
    student, teacher = logits / temperature, taught / temperature
    yes = teacher.sigmoid() * (logsigmoid(teacher) - logsigmoid(student))
    no = (-teacher).sigmoid() * (logsigmoid(-teacher) - logsigmoid(-student))
    return (yes + no).sum()
