"""Windows → predictions with a question-answering model: the one path that evaluation and serving both take."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..batching import Collator, evaluating, length_sorted_batches, tokens_per_batch
from .spans import Prediction, Spans, best_spans, concatenate, decode, no_spans
from .windows import NO_CONTEXT, Windows


@torch.inference_mode()
def predict_spans(
    model: torch.nn.Module,
    windows: Windows,
    collator: Collator,
    *,
    n_best: int,
    max_answer_length: int,
    part: tuple[int, int] = (0, 1),
    progress: str | None = None,
) -> Spans:
    """The candidates of every window, reduced batch by batch: no logits are kept.

    Windows are batched by length, longest first. part: (i, n) takes the i-th of n shares of them. progress: label of a
    progress bar. The model keeps its mode (training or evaluation).
    """
    # A share without any window also has arrays.
    spans = [no_spans(n_best)]
    with evaluating(model) as device:
        batches = length_sorted_batches(windows.lengths, tokens_per_batch(model, device), part)
        for indices in tqdm(batches, desc=progress, disable=progress is None, leave=False):
            batch = collator([windows[i] for i in indices])
            inputs = {name: t.to(device) for name, t in batch.items() if name != "labels"}
            out = model(**inputs)
            in_context: np.ndarray = np.zeros(batch["input_ids"].shape, dtype=bool)
            for row, i in enumerate(indices):
                in_context[row, : len(windows.offsets[i])] = windows.offsets[i][:, 1] != NO_CONTEXT
            spans.append(
                best_spans(
                    out.start_logits.float().cpu().numpy(),
                    out.end_logits.float().cpu().numpy(),
                    in_context,
                    n_best=n_best,
                    max_answer_length=max_answer_length,
                    windows=indices,
                )
            )
    return concatenate(spans)


def decode_spans(
    spans: Spans,
    windows: Windows,
    examples: Sequence[Mapping[str, Any]],
    *,
    n_best: int,
    null_threshold: float | None,
) -> list[Prediction]:
    """One prediction for each example, in the order of `examples` (`id`, `context`)."""
    return decode(
        spans,
        windows.offsets,
        windows.example_index,
        [example["context"] for example in examples],
        [example["id"] for example in examples],
        n_best=n_best,
        null_threshold=null_threshold,
    )
