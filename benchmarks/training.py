"""Training throughput: windows padded to max_length, padded per batch, and padded per batch and grouped by length.

The same model, windows, batch size and optimizer in one process; the ways take turns, and the ratio is taken round by
round. From each way's epoch the same number of batches is timed, spread evenly over their lengths. Needs prepared data
(scripts/prepare_data.py) and the packaged model, or --model_checkpoint.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import _path  # noqa: F401
import numpy as np
import torch
from decoding import provenance

from common import data, models
from common.batches import GroupedBatches
from common.extractive_qa import span_loss
from common.families import family_of, uses_segment_ids
from common.preprocessing import Collator, make_windows


def batches_of(way: str, lengths: np.ndarray, size: int, count: int) -> list[np.ndarray]:
    """`count` batches of window indices that stand for the epoch: spread evenly over the epoch's batch lengths."""
    if way == "grouped":
        epoch = [np.array(batch) for batch in GroupedBatches(lengths, size, seed=0)]
    else:
        order = np.random.default_rng(0).permutation(len(lengths))
        epoch = np.array_split(order, len(order) // size)
    epoch.sort(key=lambda batch: lengths[batch].max())
    middle = (np.arange(count) + 0.5) * len(epoch) / count
    return [epoch[int(i)] for i in middle]


def padded(batch: dict, length: int, pad: int) -> dict:
    """A batch padded on to a fixed length, as `padding="max_length"` gives it."""
    wide = {}
    for name, tensor in batch.items():
        value = pad if name == "input_ids" else 0
        more = (0, 0) if name == "labels" else (0, length - tensor.shape[1])
        wide[name] = torch.nn.functional.pad(tensor, more, value=value)
    return wide


def run(args) -> dict:
    splits, record = data.load(args.data_dir)
    checkpoint = models.resolve_checkpoint(args.model_checkpoint)
    model, tokenizer = models.load_base(checkpoint)
    windows = make_windows(
        tokenizer,
        splits["train"].select(range(min(args.questions, len(splits["train"])))).to_list(),
        max_length=args.max_length,
        doc_stride=args.doc_stride,
        segment_ids=uses_segment_ids(model.config),
    )
    if args.lora:
        from peft import LoraConfig

        family = family_of(model.config.model_type)
        model = models.apply(
            LoraConfig(r=16, lora_alpha=32, target_modules=family.linear_layers), model, family
        )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    collate = Collator(tokenizer.pad_token_id)
    ways = {
        "fixed": lambda batch: padded(batch, args.max_length, tokenizer.pad_token_id),
        "padded per batch": lambda batch: batch,
        "grouped": lambda batch: batch,
    }
    rates = {way: [] for way in ways}
    for round_ in range(args.rounds + 1):
        for way, finish in ways.items():
            chosen = batches_of(way, windows.lengths, args.batch_size, args.batches)
            ready = [
                finish(collate([windows[i] for i in batch]))
                for batch in chosen[:: 1 if round_ else args.batches]
            ]
            model.train()
            started = time.perf_counter()
            for batch in ready:
                labels = batch["labels"]
                inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
                loss = span_loss(model, inputs, labels) / labels.numel()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            # The first round warms up.
            if round_:
                rates[way].append(sum(map(len, chosen)) / (time.perf_counter() - started))
    ratios = [b / a for a, b in zip(rates["fixed"], rates["grouped"], strict=True)]
    return {
        "windows_per_second": {way: round(statistics.median(r), 2) for way, r in rates.items()},
        "ratio_grouped_to_fixed": {
            "median": round(statistics.median(ratios), 2),
            "lowest": round(min(ratios), 2),
            "highest": round(max(ratios), 2),
        },
        "technique": "LoRA" if args.lora else "all weights",
        "model": checkpoint.name,
        "data": record["name"],
        "windows": len(windows),
        "mean_tokens": round(float(windows.lengths.mean()), 1),
        "max_length": args.max_length,
        "batch_size": args.batch_size,
        "timed_batches": args.batches,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "provenance": provenance(),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data_dir", default="squad_data")
    p.add_argument("--model_checkpoint", default="embedded")
    p.add_argument("--questions", type=int, default=1000, help="training questions to cut into windows")
    p.add_argument("--max_length", type=int, default=384)
    p.add_argument("--doc_stride", type=int, default=128)
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--batches", type=int, default=6, help="timed in each round")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--lora", action="store_true", help="LoRA r16 on all linear layers instead of all weights")
    p.add_argument("--output", type=Path, help="write the JSON here too")
    args = p.parse_args()
    text = json.dumps(run(args), indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
