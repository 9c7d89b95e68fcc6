"""Generative question answering: the answer is written, token by token, behind a prompt of context and question."""

import torch

from ...models.families import family_of
from ...scoring import squad
from ..table import Work
from .writing import IGNORED, Collator, Prompts, Written, choose, join, make_prompts, trained, write


def features(tokenizer, config, examples, args) -> Prompts:
    """A prompt for every window of every example's context; `trained` chooses those to train on."""
    return make_prompts(
        tokenizer,
        examples,
        kind=family_of(config.model_type).kind,
        max_length=args.max_length,
        doc_stride=args.doc_stride,
        max_answer_length=args.max_answer_length,
    )


def collator(tokenizer, config) -> Collator:
    return Collator(tokenizer, family_of(config.model_type).kind)


def answer_loss(model, batch, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the answers' tokens, their ends included, summed over a batch; labels as `Collator` gives them."""
    if "position_ids" in batch:
        # A decoder. Answers stand at the ends of the rows, and each token is predicted by the one before: no other
        # logits are computed, which for GPT-2's vocabulary would take a gigabyte a batch.
        longest = int((labels != IGNORED).sum(1).max())
        logits = model(**batch, logits_to_keep=longest + 1).logits[:, :-1]
        labels = labels[:, -longest:]
    else:
        logits = model(**batch, labels=labels).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def outputs(model, prompts, collator, args, part, progress) -> Written:
    return write(
        model, prompts, collator, max_answer_length=args.max_answer_length, part=part, progress=progress
    )


def predictions(written, prompts, examples, args, decision):
    return choose(written, prompts.example_index, [example["id"] for example in examples])


def score(predictions, examples, version):
    answers = {prediction.id: prediction.text for prediction in predictions}
    return (
        squad.squad_scores(answers, examples, version),
        squad.score_examples(answers, examples, version),
    )


def row(prediction, example) -> dict:
    return {"question": example["question"], "prediction": prediction.text, "score": prediction.score}


def request(example) -> dict:
    return {name: example[name] for name in ("question", "context")}


WORK = Work(
    features=features,
    trained=trained,
    collator=collator,
    loss=answer_loss,
    outputs=outputs,
    join=join,
    predictions=predictions,
    decide=lambda predictions, examples, version: None,
    score=score,
    row=row,
    request=request,
)
