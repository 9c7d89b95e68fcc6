"""Extractive question answering: the answer is a span of the context."""

from dataclasses import asdict

import torch

from ...models.families import Family, uses_segment_ids
from ...scoring import squad
from ..batching import Collator
from ..table import Work
from .packing import end_to_end, in_rows
from .prediction import decode_spans, predict_spans
from .spans import Spans, concatenate, tune_null_threshold
from .windows import Windows, make_windows


def features(tokenizer, config, examples, args) -> Windows:
    """Overlapping windows; an answer that a window does not hold whole is labelled 0."""
    return make_windows(
        tokenizer,
        examples,
        max_length=args.max_length,
        doc_stride=args.doc_stride,
        segment_ids=uses_segment_ids(config),
    )


def span_loss(model, batch, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of first and last answer token, summed over a batch; labels: (batch, 2).

    The softmax leaves padding out; transformers' own loss does not, so that there a window's loss depends on the
    windows that it happens to share a batch with.
    """
    out = model(**batch)
    return _cross_entropy(out.start_logits, out.end_logits, batch["attention_mask"], labels)


def unpadded_span_loss(family: Family):
    """`span_loss` that computes no padding at all, for a family with absolute positions."""

    def loss(model, batch, labels: torch.Tensor) -> torch.Tensor:
        mask = batch["attention_mask"]
        out = model(**end_to_end(batch, family.first_position))
        return _cross_entropy(in_rows(out.start_logits, mask), in_rows(out.end_logits, mask), mask, labels)

    return loss


def _cross_entropy(starts, ends, mask, labels) -> torch.Tensor:
    logits = torch.stack([starts, ends], dim=1).float()
    logits = logits.masked_fill(mask[:, None] == 0, torch.finfo(logits.dtype).min)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def outputs(model, windows, collator, args, part, progress) -> Spans:
    return predict_spans(
        model,
        windows,
        collator,
        n_best=args.n_best,
        max_answer_length=args.max_answer_length,
        part=part,
        progress=progress,
    )


def predictions(spans, windows, examples, args, decision):
    return decode_spans(spans, windows, examples, n_best=args.n_best, null_threshold=decision)


def decide(predictions, examples, version) -> float | None:
    """The threshold above which "no answer" is given; SQuAD v1.1 always answers."""
    return tune_null_threshold(predictions, examples) if version == "v2.0" else None


def score(predictions, examples, version):
    answers = {prediction.id: prediction.text for prediction in predictions}
    return (
        squad.squad_scores(answers, examples, version),
        squad.score_examples(answers, examples, version),
    )


def row(prediction, example) -> dict:
    kept = asdict(prediction) | {"n_best": list(prediction.n_best)}
    del kept["id"]
    return {"question": example["question"], "prediction": kept.pop("text"), **kept}


def request(example) -> dict:
    return {name: example[name] for name in ("question", "context")}


WORK = Work(
    features=features,
    collator=lambda tokenizer, config: Collator(tokenizer.pad_token_id),
    loss=span_loss,
    outputs=outputs,
    join=concatenate,
    predictions=predictions,
    decide=decide,
    score=score,
    row=row,
    request=request,
    unpadded_loss=unpadded_span_loss,
)
