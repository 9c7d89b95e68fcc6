"""What transformers 4.57.6 computes in `pipelines/question_answering.py`, written out for one window."""

import numpy as np


def softmaxes(start, end, in_context):
    """The probabilities of first and last tokens over the context and the first token, which then get none itself.

    start, end: (length,) logits; in_context: (length,) bool.
    """
    kept = in_context.copy()
    kept[0] = True
    found = []
    for logits in (start, end):
        weights = np.exp(np.where(kept, logits, -10000.0) - np.where(kept, logits, -10000.0).max())
        found.append(weights / weights.sum())
    null = float(found[0][0] * found[1][0])
    for each in found:
        each[0] = 0.0
    return *found, null


def ranked(start, end, in_context, max_answer_len):
    """(first token, last token, score) of every span, best first; and the score of "no answer"."""
    starts, ends, null = softmaxes(start, end, in_context)
    scores = np.tril(np.triu(np.outer(starts, ends)), max_answer_len - 1)
    places = np.argwhere(scores > 0)
    spans = [(int(a), int(b), float(scores[a, b])) for a, b in places if in_context[a] and in_context[b]]
    return sorted(spans, key=lambda span: -span[2]), null
