"""Windows → predictions with a question-answering model: the one path that evaluation and serving both take."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

    def batches(tokens: int) -> Iterable[np.ndarray]:
        found = length_sorted_batches(windows.lengths, tokens, part)
        return tqdm(found, desc=progress, disable=progress is None, leave=False)

    for indices, starts, ends, in_context in window_logits(model, windows, collator, batches):
        spans.append(
            best_spans(
                starts,
                ends,
                in_context,
                n_best=n_best,
                max_answer_length=max_answer_length,
                windows=indices,
            )
        )
    return concatenate(spans)


def window_logits(
    model: torch.nn.Module,
    windows: Windows,
    collator: Collator,
    batches: Callable[[int], Iterable[np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """For each batch of B windows: (their indices (B,); start logits, end logits and whether a token is the context's (B, L)).

    batches: number of padded tokens that the device is fastest with → the indices of each batch. Whoever calls it is in
    inference mode. The model keeps its mode (training or evaluation).
    """
    with evaluating(model) as device:
        for indices in batches(tokens_per_batch(model, device)):
            batch = collator([windows[i] for i in indices])
            inputs = {name: t.to(device) for name, t in batch.items() if name != "labels"}
            out = model(**inputs)
            in_context: np.ndarray = np.zeros(batch["input_ids"].shape, dtype=bool)
            for row, i in enumerate(indices):
                in_context[row, : len(windows.offsets[i])] = windows.offsets[i][:, 1] != NO_CONTEXT
            starts, ends = (logits.float().cpu().numpy() for logits in (out.start_logits, out.end_logits))
            yield indices, starts, ends, in_context


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
