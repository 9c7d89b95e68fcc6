"""The loss of generative question answering."""

from collections.abc import Sequence

import numpy as np
import torch

from ...scoring.calibration import Candidates
from ..batching import Batch
from .writing import IGNORED, Answer


def candidates(answers: Sequence[Answer]) -> Candidates:
    """What was written and everything else that could have been, with the logarithms of their probabilities."""
    p = np.array([answer.score for answer in answers])
    with np.errstate(divide="ignore"):
        scores = np.stack([np.log(p), np.log1p(-np.minimum(p, 1.0))], axis=1)
    return Candidates.of(scores.tolist(), [0] * len(answers))


def answer_loss(
    model: torch.nn.Module, batch: Batch, labels: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Cross-entropy of the answers' tokens, their ends included, summed over a batch; labels as `Collator` gives them.

    smoothing: the share of each token's probability that is spread evenly over the vocabulary.
    """
    if "position_ids" in batch:
        # A decoder. Answers stand at the ends of the rows, and the token before predicts each of their tokens. No other
        # logits are computed: with GPT-2's vocabulary they would take a gigabyte a batch.
        # As indices, which copy: torch multiplies a slice with the output layer row by row, and so are its gradients made.
        longest = int((labels != IGNORED).sum(1).max())
        last = torch.arange(-longest - 1, -1, device=labels.device)
        logits = model(**batch, logits_to_keep=last).logits
        labels = labels[:, -longest:]
    else:
        logits = model(**batch, labels=labels).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )
