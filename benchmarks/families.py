"""Training steps of families other than BERT: torch and PEFT as they are, against the suite, in float32 and in bf16.

Models have the packaged MiniLM's size (6 layers, 384 wide) and random weights; speed does not depend on them. Each way takes
an optimizer step's forward and backward pass on the same batches, whose rows are of similar length, as batches grouped by
length have them. Encoders answer with spans; GPT-2 and T5 write, with answers of 5 tokens. Ways take turns, and ratios are
taken round by round.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import _path  # noqa: F401
import torch
from table_rows import between, json_flag, write_report
from training import HALF, SUITE, spread, technique_of
from transformers import AutoConfig

from common.cli import guarded
from common.models import base as models
from common.models.cpu_kernels import keep_memory, quicken
from common.models.families import auto_class, family_of
from common.models.products import round_products
from common.models.virtual_tokens import real_positions
from common.tasks.extractive_qa.work import span_loss
from common.tasks.generative_qa.work import answer_loss
from common.tasks.generative_qa.writing import IGNORED

SHAPES: dict[str, dict] = {
    "distilbert": dict(dim=384, n_layers=6, n_heads=12, hidden_dim=1536),
    "mpnet": dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
    "modernbert": dict(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=576,
        pad_token_id=0,
        bos_token_id=1,
        cls_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
    ),
    "gpt2": dict(n_embd=384, n_layer=6, n_head=12),
    "t5": dict(d_model=384, d_ff=1536, d_kv=32, num_heads=12, num_layers=6, decoder_start_token_id=0),
}
"""Model type → what differs from the defaults of transformers."""
TYPES = {
    "distilbert": "DistilBERT",
    "mpnet": "MPNet",
    "modernbert": "ModernBERT",
    "gpt2": "GPT-2",
    "t5": "T5",
}
PLAIN = "plain"
WRITTEN = 5
"""Tokens of an answer."""


def model_of(name: str, technique: str) -> torch.nn.Module:
    config = AutoConfig.for_model(name, **SHAPES[name])
    family = family_of(name)
    head = {"decoder": "CausalLM", "encoder-decoder": "Seq2SeqLM"}.get(family.kind, "QuestionAnswering")
    torch.manual_seed(0)
    model = auto_class(head).from_config(config, trust_remote_code=False)
    return models.apply(technique_of(technique).method(family), model, family, head).train()


def batch_of(name: str, rows: int, longest: int) -> dict[str, torch.Tensor]:
    """Random tokens in rows of 9/10 of the longest length and more, padded as the family needs it, with labels."""
    kind = family_of(name).kind
    lengths = torch.linspace(0.9 * longest, longest, rows).long()[:, None]
    place = torch.arange(longest)
    seen = place >= longest - lengths if kind == "decoder" else place < lengths
    batch = {"input_ids": torch.randint(1000, 20_000, seen.shape) * seen, "attention_mask": seen.long()}
    answers = torch.randint(1000, 20_000, (rows, WRITTEN))
    if kind == "decoder":
        labels = torch.full(seen.shape, IGNORED)
        labels[:, -WRITTEN:] = answers
        return batch | {"labels": labels, "position_ids": real_positions(batch["attention_mask"])}
    if kind == "encoder-decoder":
        return batch | {"labels": answers}
    return batch | {"labels": torch.cat([lengths // 2, lengths // 2 + 2], dim=1)}


def step(model: torch.nn.Module, batch: dict[str, torch.Tensor], loss: Callable) -> None:
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    loss(model, inputs, batch["labels"]).backward()
    for parameter in model.parameters():
        parameter.grad = None


def run(name: str, technique: str, args) -> dict:
    plain = model_of(name, technique)
    built = {PLAIN: plain, SUITE: quicken(copy.deepcopy(plain))}
    round_products(True)
    built[HALF] = quicken(copy.deepcopy(plain))
    torch.manual_seed(0)
    batch = batch_of(name, args.batch_size, args.length)
    loss = span_loss if family_of(name).kind == "encoder" else answer_loss
    rates: dict[str, list[float]] = {way: [] for way in built}
    for round_ in range(args.rounds + 1):
        for way, model in built.items():
            keep_memory(way != PLAIN)
            round_products(way == HALF)
            step(model, batch, loss)
            started = time.perf_counter()
            # The first round warms up.
            for _ in range(args.batches if round_ else 0):
                step(model, batch, loss)
            if round_:
                rates[way].append(args.batches * args.batch_size / (time.perf_counter() - started))
    round_products(False)
    return {
        "family": TYPES[name],
        "technique": technique_of(technique).name,
        "rows_per_second": {way: round(statistics.median(r), 2) for way, r in rates.items()},
        "suite_against_plain": ratio(rates, SUITE, PLAIN),
        "bf16_against_plain": ratio(rates, HALF, PLAIN),
        "bf16_against_suite": ratio(rates, HALF, SUITE),
        "batch_size": args.batch_size,
        "length": args.length,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
    }


def ratio(rates: dict[str, list[float]], of: str, to: str) -> dict[str, float]:
    return spread([a / b for a, b in zip(rates[of], rates[to], strict=True)])


def rows(results: list[dict]) -> Iterator[dict]:
    """For --json: rows of a batch a second, and the ratios."""
    for found in results:
        rates = {way.replace(" ", "_"): rate for way, rate in found["rows_per_second"].items()}
        ratios = ("suite_against_plain", "bf16_against_plain", "bf16_against_suite")
        yield {"family": found["family"], "technique": found["technique"], **rates} | {
            key: value for name in ratios for key, value in between(name, found[name]).items()
        }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--families", nargs="+", choices=SHAPES, default=list(SHAPES))
    p.add_argument("--techniques", nargs="+", default=["standard", "lora"], help="keys of scripts")
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--length", type=int, default=196, help="tokens of the longest row")
    p.add_argument("--batches", type=int, default=2, help="timed in each round")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--output", type=Path, help="also write the JSON here")
    json_flag(p)
    args = p.parse_args()
    found = [run(name, technique, args) for name in args.families for technique in args.techniques]
    write_report(args, list(rows(found)), found, data="random tokens and weights")


if __name__ == "__main__":
    sys.exit(guarded(main))
