"""P-tuning as PEFT does it, with its answer labels left where they were, and with them moved along with the logits.

The same base, seed, windows, order and steps; only the labels of training differ. Both are decoded alike, the virtual
tokens' logits cut off. `suite` is the suite's own forward pass, which also keeps segment and position ids. Needs data
in the official JSON format and the packaged model, or --model_checkpoint.
"""

import argparse
import json
from pathlib import Path

import _path  # noqa: F401
import torch
from decoding import provenance
from peft import PromptEncoderConfig, get_peft_model
from table_rows import json_flag, save_rows
from torch.nn.functional import cross_entropy
from transformers import get_linear_schedule_with_warmup, set_seed

from common.data.squad_json import read_squad_json
from common.models import base
from common.models.families import family_of
from common.scoring import bootstrap, squad
from common.tasks.batching import Collator
from common.tasks.extractive_qa.prediction import decode_spans, predict_spans
from common.tasks.extractive_qa.windows import make_windows
from common.tasks.extractive_qa.work import span_loss
from common.training.batch_order import GroupedBatches
from common.training.sampling import drawn

WAYS = ("unshifted", "shifted", "suite")


class Trimmed(torch.nn.Module):
    """A model whose first `n` logits belong to virtual tokens, without them."""

    def __init__(self, model, n: int):
        super().__init__()
        self.model, self.n = model, n

    def forward(self, **inputs):
        out = self.model(**inputs)
        out.start_logits, out.end_logits = out.start_logits[:, self.n :], out.end_logits[:, self.n :]
        return out


def loss_of(way: str, model, inputs, labels, n: int):
    if way == "suite":
        return span_loss(model, inputs, labels) / labels.numel()
    out = model(**inputs)
    start, end = (labels + (n if way == "shifted" else 0)).unbind(1)
    return (cross_entropy(out.start_logits, start) + cross_entropy(out.end_logits, end)) / 2


def train_and_score(way: str, args, windows, test, test_windows) -> dict:
    set_seed(args.seed)
    model, tokenizer = base.load_base(base.resolve_checkpoint(args.model_checkpoint))
    config = PromptEncoderConfig(num_virtual_tokens=args.virtual_tokens)
    if way == "suite":
        model = base.apply(config, model, family_of(model.config.model_type))
    else:
        config.task_type = "QUESTION_ANS"
        model = get_peft_model(model, config)
    collate = Collator(tokenizer.pad_token_id)
    batches = GroupedBatches(windows.lengths, args.batch_size, args.seed)
    steps = len(batches) * args.epochs
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    model.train()
    for epoch in range(args.epochs):
        batches.set_epoch(epoch)
        for batch in batches:
            inputs = collate([windows[i] for i in batch])
            loss_of(way, model, inputs, inputs.pop("labels"), args.virtual_tokens).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    if way != "suite":
        model = Trimmed(model, args.virtual_tokens)
    spans = predict_spans(model, test_windows, collate, n_best=20, max_answer_length=30)
    answers = decode_spans(spans, test_windows, test, n_best=20, null_threshold=None)
    texts = {answer.id: answer.text for answer in answers}
    each = squad.score_examples(texts, test, "v1.1")
    low, high = bootstrap.bootstrap_interval(100 * each["f1"])
    summary = squad.squad_scores(texts, test, "v1.1")
    return {
        "f1": round(summary["f1"], 1),
        "f1_95": [round(low, 1), round(high, 1)],
        "exact_match": round(summary["exact_match"], 1),
    }


def _some(questions, limit, seed):
    """As many questions as the limit says, drawn by the seed."""
    places = drawn(len(questions), limit, seed)
    return questions if places is None else [questions[i] for i in places]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--train_file", type=Path, required=True, help="SQuAD v1.1 JSON")
    p.add_argument("--test_file", type=Path, required=True, help="SQuAD v1.1 JSON")
    p.add_argument("--model_checkpoint", default="embedded")
    p.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    p.add_argument("--max_train_samples", type=int, default=2000)
    p.add_argument("--max_test_samples", type=int, default=1500)
    p.add_argument("--max_length", type=int, default=256)
    p.add_argument("--doc_stride", type=int, default=64)
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--learning_rate", type=float, default=5e-3)
    p.add_argument("--virtual_tokens", type=int, default=20)
    p.add_argument("--seed", type=int, default=42)
    json_flag(p)
    args = p.parse_args()
    _, tokenizer = base.load_base(base.resolve_checkpoint(args.model_checkpoint))
    cut = dict(max_length=args.max_length, doc_stride=args.doc_stride, segment_ids=True)
    train, test = read_squad_json(args.train_file).placed, read_squad_json(args.test_file).examples
    train, test = (
        _some(train, args.max_train_samples, args.seed),
        _some(test, args.max_test_samples, args.seed),
    )
    windows, test_windows = (make_windows(tokenizer, part, **cut) for part in (train, test))
    found = {}
    for way in args.ways:
        found[way] = train_and_score(way, args, windows, test, test_windows)
        print(way, json.dumps(found[way]), flush=True)
    shown = [
        {"way": way, "exact_match": each["exact_match"], "f1": each["f1"]}
        | dict(zip(("f1_low", "f1_high"), each["f1_95"], strict=True))
        for way, each in found.items()
    ]
    asked = (
        f"{len(train)} questions of {args.train_file.name}, tested on {len(test)} of {args.test_file.name}"
    )
    save_rows(args.json, shown, data=asked, model=args.model_checkpoint, seeds=[args.seed])
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    print(json.dumps({"found": found, "settings": settings, "provenance": provenance()}, indent=1))


if __name__ == "__main__":
    main()
