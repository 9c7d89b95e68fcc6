"""Training throughput of a technique: PEFT and torch as they are, against the suite.

Five ways take turns in one process on the same windows, with the same batch size, optimizer and loss: windows padded to
max_length, padded per batch, padded per batch and grouped by length, all three as torch and PEFT compute them, and the
suite's own (grouped, with common/models/cpu_kernels.py), in float32 and with products in bf16. Ratios are taken round by round. From each way's epoch the same number of
batches is timed, spread evenly over their lengths, after the longest of them has been trained on once. The share of the
machine's peak is that of a matrix product of a layer's shape, and counts the arithmetic that real tokens need, not padding.
--profile also tells what the suite's time goes to, by torch's profiler.
Needs prepared data (scripts/prepare_data.py) and the packaged model, or --model_checkpoint.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import _path  # noqa: F401
import numpy as np
import torch
from decoding import provenance
from table_rows import between, json_flag, save_rows

from common.api.technique_scripts import techniques
from common.cli import guarded
from common.data import prepared
from common.models import base as models
from common.models.cpu_kernels import keep_memory, quicken
from common.models.families import family_of, uses_segment_ids
from common.models.hooks import hook_of
from common.models.products import round_products
from common.tasks.batching import Collator
from common.tasks.extractive_qa.windows import make_windows
from common.tasks.extractive_qa.work import span_loss
from common.training.batch_order import GroupedBatches
from common.training.settings import Technique

TECHNIQUES: dict[str, tuple[str, dict]] = {
    "standard": ("standard", {}),
    "lora": ("lora", {}),
    "ia3": ("ia3", {}),
    "loha": ("loha", {}),
    "prefix": ("prefix-tuning", {}),
    "prompt": ("prompt-encoder", {}),
    "dora": ("lora", {"dora": True}),
    "adalora": ("adalora", {}),
    "bottleneck": ("bottleneck", {}),
}
"""As --techniques names them → (key, settings)."""
SUITE, HALF = "suite", "suite bf16"
WAYS = ("fixed", "padded per batch", "grouped", SUITE, HALF)
# What a profile sums up: torch's operators that belong to each part. Every other operator is a pass over tensors.
PARTS = {
    "linear layers": ("addmm", "mm"),
    "attention's products": ("bmm", "baddbmm"),
    "softmax": ("_softmax", "_softmax_backward_data"),
    "dropout's draws": ("random_", "uniform_", "ge", "lt"),
    "GELU": ("gelu", "gelu_backward"),
    "layer norm": ("native_layer_norm", "native_layer_norm_backward"),
    "optimizer, clipping": ("_fused_adamw_", "_foreach_norm", "linalg_vector_norm", "_foreach_mul_"),
}
STEPS = 1000
"""The length of the training at whose beginning a technique with a schedule stands."""
COMPARED = [(SUITE, "fixed"), (SUITE, "grouped"), (HALF, "grouped"), (HALF, SUITE)]
"""The suite's way, and what its ratio is against."""
PASSES, REST = "other passes", "Python and calls"


def technique_of(name: str) -> Technique:
    """A technique with its defaults, but for what the table says. name: as --techniques names it, or the key of any script."""
    key, settings = TECHNIQUES.get(name, (name, {}))
    return techniques()[key](**settings)


def every_technique() -> list[str]:
    """What --techniques takes: the names of the table, and the keys of the scripts."""
    return sorted({*TECHNIQUES, *techniques()})


def batches_of(way: str, lengths: np.ndarray, size: int, count: int) -> list[np.ndarray]:
    """`count` batches of window indices that stand for the epoch: spread evenly over the epoch's batch lengths."""
    if way in ("grouped", SUITE, HALF):
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


def arithmetic(config, lengths: np.ndarray, all_weights: bool) -> float:
    """Floating-point operations that training on windows of these lengths needs: the encoder's layers, no adapter.

    Forward, the gradients of what went into each product, and, where all weights are trained, those of the weights.
    """
    hidden, tokens = config.hidden_size, lengths.sum()
    weights = config.num_hidden_layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    attention = 4 * config.num_hidden_layers * hidden * (lengths.astype(float) ** 2).sum()
    return (3 if all_weights else 2) * 2 * weights * tokens + 3 * attention


def peak(config, rows: int) -> float:
    """Floating-point operations in a second of the product of `rows` tokens with a layer's widest matrix."""
    x = torch.randn(rows, config.hidden_size)
    w = torch.randn(config.hidden_size, config.intermediate_size)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(5):
            x @ w
        spent = time.perf_counter() - started
        best = max(best, 5 * 2 * rows * config.hidden_size * config.intermediate_size / spent)
    return best


def train_on(batches: list[dict], model, optimizer) -> None:
    """An optimizer step on each batch, with what the technique does beside it: in every way the same."""
    hook = hook_of(model)
    if hook:
        hook.begin(STEPS)
    for step, batch in enumerate(batches, start=1):
        labels = batch["labels"]
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        loss = span_loss(model, inputs, labels) / labels.numel()
        (loss + hook.extra_loss() if hook else loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if hook:
            hook.after_step(step)
        optimizer.zero_grad()


def profile(batches: list[dict], model, optimizer) -> dict[str, float]:
    """The share of each part in the time of training on the batches."""
    part_of = {f"aten::{name}": part for part, names in PARTS.items() for name in names}
    spent = dict.fromkeys((*PARTS, PASSES), 0.0)
    train_on(batches[-1:], model, optimizer)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        started = time.perf_counter()
        train_on(batches, model, optimizer)
        seconds = time.perf_counter() - started
    for event in profiler.key_averages():
        # What is not torch's own are functions written in Python.
        if event.key.startswith("aten::"):
            spent[part_of.get(event.key, PASSES)] += event.self_cpu_time_total / 1e6
    spent[REST] = seconds - sum(spent.values())
    return {part: round(own / seconds, 3) for part, own in spent.items()}


def run(name: str, args) -> dict:
    splits, record = prepared.load(args.data_dir)
    checkpoint = models.resolve_checkpoint(args.model_checkpoint)
    base, tokenizer = models.load_base(checkpoint)
    config, family = base.config, family_of(base.config.model_type)
    windows = make_windows(
        tokenizer,
        splits["train"].select(range(min(args.questions, len(splits["train"])))).to_list(),
        max_length=args.max_length,
        doc_stride=args.doc_stride,
        segment_ids=uses_segment_ids(config),
    )
    technique = technique_of(name)
    peft_config = technique.method(family)
    torch.manual_seed(0)
    plain = models.apply(peft_config, base, family)
    built = {"plain": plain, SUITE: quicken(copy.deepcopy(plain))}
    round_products(True)
    built[HALF] = quicken(copy.deepcopy(plain))
    round_products(False)
    optimizers = {
        name: torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-5, fused=True)
        for name, m in built.items()
    }
    collate = Collator(tokenizer.pad_token_id)
    rates, shares = {way: [] for way in args.ways}, {way: [] for way in args.ways}
    profiled = None
    for round_ in range(args.rounds + 1):
        for way in args.ways:
            which = way if way in built else "plain"
            model, optimizer = built[which].train(), optimizers[which]
            keep_memory(way in (SUITE, HALF))
            chosen = batches_of(way, windows.lengths, args.batch_size, args.batches)
            # In the first round, which warms up, one batch alone.
            ready = [
                collate([windows[i] for i in batch]) for batch in chosen[:: 1 if round_ else args.batches]
            ]
            if way == "fixed":
                ready = [padded(batch, args.max_length, tokenizer.pad_token_id) for batch in ready]
            reachable = peak(config, args.batch_size * 180)
            round_products(way == HALF)
            # The longest batch once before: what an epoch pays but once, the way before has undone.
            train_on(ready[-1:], model, optimizer)
            started = time.perf_counter()
            train_on(ready, model, optimizer)
            seconds = time.perf_counter() - started
            round_products(False)
            if round_:
                rates[way].append(sum(map(len, chosen)) / seconds)
                needed = arithmetic(config, windows.lengths[np.concatenate(chosen)], peft_config is None)
                shares[way].append(needed / seconds / reachable)
            if args.profile and round_ == args.rounds and way == SUITE:
                profiled = profile(ready, model, optimizer)
    return {
        "technique": " ".join([technique.name, *TECHNIQUES.get(name, ("", {}))[1]]),
        "profile": profiled,
        "windows_per_second": {way: round(statistics.median(r), 2) for way, r in rates.items()},
        "share_of_peak": {way: round(statistics.median(s), 3) for way, s in shares.items()},
        "ratios": {
            own: {
                way: spread([b / a for a, b in zip(rates[way], rates[own], strict=True)])
                for way in args.ways
                if way not in (own, HALF)
            }
            for own in (SUITE, HALF)
            if own in args.ways
        },
        "model": checkpoint.name,
        "data": record.name,
        "windows": len(windows),
        "mean_tokens": round(float(windows.lengths.mean()), 1),
        "max_length": args.max_length,
        "batch_size": args.batch_size,
        "timed_batches": args.batches,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "provenance": provenance(),
    }


def markdown(results: list[dict]) -> str:
    """Windows per second and share of peak of each way, and the suite's ratios with their lowest and highest."""
    lines = [
        f"| technique | {' | '.join(f'{way}, windows/s' for way in WAYS)} | share of peak: grouped | suite "
        f"| {' | '.join(f'{own} against {way}' for own, way in COMPARED)} |",
        "| --- | " + "---: | " * (len(WAYS) + 2 + len(COMPARED)),
    ]
    for found in results:
        rates, shares, ratios = (found[name] for name in ("windows_per_second", "share_of_peak", "ratios"))
        cells = [found["technique"], *(rates.get(way, "") for way in WAYS)]
        cells += [f"{shares[way]:.0%}" if way in shares else "" for way in ("grouped", SUITE)]
        for own, way in COMPARED:
            ratio = ratios.get(own, {}).get(way)
            cells.append(f"{ratio['median']} ({ratio['lowest']} to {ratio['highest']})" if ratio else "")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    profiles = {found["technique"]: found["profile"] for found in results if found["profile"]}
    if profiles:
        parts = (*PARTS, PASSES, REST)
        lines += ["", f"| technique | {' | '.join(parts)} |", "| --- | " + "---: | " * len(parts)]
        for technique, shares in profiles.items():
            lines.append(f"| {technique} | {' | '.join(f'{shares[part]:.0%}' for part in parts)} |")
    return "\n".join(line.rstrip() for line in lines) + "\n"


FIELDS = dict(
    zip(
        (*PARTS, PASSES, REST),
        ("linear", "attention_products", "softmax", "dropout_draws", "gelu", "layer_norm", "optimizer")
        + ("other_passes", "python"),
        strict=True,
    )
)
"""Part of a profile → the field of a row."""


def rows(results: list[dict]) -> Iterator[dict]:
    """For --json: windows a second, ratios, shares of the peak in percent."""
    for found in results:
        shares = {f"peak_share_{field(way)}": 100 * share for way, share in found["share_of_peak"].items()}
        rates = {field(way): rate for way, rate in found["windows_per_second"].items()}
        ratios = {
            f"{'bf16_' * (own == HALF)}against_{way}": ratio
            for own, against in found["ratios"].items()
            for way, ratio in against.items()
        }
        yield {"technique": found["technique"], **rates, **shares} | {
            key: value for name, ratio in ratios.items() for key, value in between(name, ratio).items()
        }


def field(way: str) -> str:
    """A way in the name of a row's field."""
    return way.replace(" ", "_")


def profile_rows(results: list[dict]) -> Iterator[dict]:
    """For --json with --profile: percent of a step."""
    for found in results:
        shares = {FIELDS[part]: 100 * share for part, share in found["profile"].items()}
        yield {"technique": found["technique"], **shares}


def spread(ratios: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(ratios), 2),
        "lowest": round(min(ratios), 2),
        "highest": round(max(ratios), 2),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--techniques", nargs="+", choices=every_technique(), default=list(TECHNIQUES))
    p.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    p.add_argument("--data_dir", default="squad_data")
    p.add_argument("--model_checkpoint", default="embedded", help="a BERT")
    p.add_argument("--questions", type=int, default=1000, help="training questions to cut into windows")
    p.add_argument("--max_length", type=int, default=384)
    p.add_argument("--doc_stride", type=int, default=128)
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--batches", type=int, default=6, help="timed in each round")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument(
        "--profile", action="store_true", help="also what the suite's time goes to, which --json then holds"
    )
    p.add_argument("--output", type=Path, default=Path("training.json"), help="JSON; .md lies beside it")
    json_flag(p)
    args = p.parse_args()
    if args.profile and SUITE not in args.ways:
        p.error("--profile tells of the suite: add it to --ways.")
    found = []
    for name in args.techniques:
        found.append(run(name, args))
        args.output.write_text(json.dumps(found, indent=1) + "\n")
    shown = profile_rows(found) if args.profile else rows(found)
    save_rows(args.json, shown, data=found[0]["data"], model=found[0]["model"])
    table = markdown(found)
    args.output.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    sys.exit(guarded(main))
