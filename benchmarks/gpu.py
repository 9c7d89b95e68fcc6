"""Training on a GPU: the Hugging Face recipe against the suite, at the sizes of BERT-base and BERT-large.

`recipe` pads windows to --max_length, in random order, in fp32 and in bf16 (autocast); `suite` takes batches grouped by
length in bf16, as it is, packed (--pack_batches), and each once more with torch.compile. Ways take turns on the same model,
optimizer, loss and windows, whose lengths are drawn like those of SQuAD (181 tokens on average). Weights are random: speed
does not depend on them. Utilisation is the arithmetic that real tokens need, over what a bf16 matrix product reaches in the
same run. Each way also tells its peak memory, and the largest batch (a power of two) for which a step has room. Without a
GPU it runs on a CPU, for what it is worth there: --shapes tiny.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import _path  # noqa: F401
import numpy as np
import torch
from decoding import provenance
from table_rows import json_flag, save_rows
from training import STEPS, TECHNIQUES, arithmetic, batches_of, every_technique, spread, technique_of

from common.models import base
from common.models.cpu_kernels import quicken
from common.models.families import FAMILIES
from common.models.hooks import hook_of
from common.models.virtual_tokens import PromptModel
from common.tasks.extractive_qa.work import span_loss, unpadded_span_loss

# hidden size, layers, heads
SHAPES = {"tiny": (64, 2, 2), "base": (768, 12, 12), "large": (1024, 24, 16)}
# Of each way: whether windows are padded to the full length, the precision, whether the model is compiled.
WAYS = {
    "recipe fp32": (True, None, False),
    "recipe bf16": (True, torch.bfloat16, False),
    "suite": (False, torch.bfloat16, False),
    "suite packed": (False, torch.bfloat16, False),
    "suite compiled": (False, torch.bfloat16, True),
    "suite packed compiled": (False, torch.bfloat16, True),
}


def lengths_like_squad(n: int, longest: int) -> np.ndarray:
    """Window lengths in tokens, log-normal as SQuAD's paragraphs are: mean 181, standard deviation 65."""
    spread_of_log = np.sqrt(np.log(1 + (65 / 181) ** 2))
    drawn = np.random.default_rng(0).lognormal(np.log(181) - spread_of_log**2 / 2, spread_of_log, n)
    return np.clip(drawn, 32, longest).astype(int)


def model_of(shape: str, technique, device):
    from transformers import BertConfig, BertForQuestionAnswering

    hidden, layers, heads = SHAPES[shape]
    config = BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    family = FAMILIES["bert"]
    return base.apply(technique.method(family), BertForQuestionAnswering(config), family).to(device)


def made(lengths: np.ndarray, width: int, device) -> dict[str, torch.Tensor]:
    """A batch of random tokens with windows of these lengths, padded to `width`; spans that lie in each window."""
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.randint(1000, 30_000, mask.shape) * mask
    starts = torch.tensor(lengths) // 2
    batch = {
        "input_ids": ids,
        "token_type_ids": torch.zeros_like(ids),
        "attention_mask": mask.long(),
        "labels": torch.stack([starts, starts + 2], dim=1),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def loss_of(way: str):
    return unpadded_span_loss(FAMILIES["bert"]) if "packed" in way else span_loss


def step(model, optimizer, batch: dict, precision, loss_function, hook=None, number: int = 1) -> None:
    """An optimizer step with what the technique does beside it. hook: the technique's, if it has one; number: of the step."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    device = batch["labels"].device.type
    with torch.autocast(device, precision) if precision else nullcontext():
        loss = loss_function(model, inputs, batch["labels"]) / batch["labels"].numel()
        if hook:
            loss = loss + hook.extra_loss()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if hook:
        hook.after_step(number)
    optimizer.zero_grad()


def settle(device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak(device, config, rows: int, precision=torch.bfloat16) -> float:
    """Floating-point operations in a second of the product of `rows` tokens with a layer's widest matrix."""
    x = torch.randn(rows, config.hidden_size, device=device, dtype=precision)
    w = torch.randn(config.hidden_size, config.intermediate_size, device=device, dtype=precision)
    best = 0.0
    for _ in range(5):
        settle(device)
        begun = time.perf_counter()
        for _ in range(20):
            x @ w
        settle(device)
        best = max(best, 20 * 2 * x.numel() * w.shape[1] / (time.perf_counter() - begun))
    return best


def room(model, optimizer, longest: int, precision, loss_function, device, most: int) -> int | None:
    """The largest power of two of full-length windows that a step has room for, `most` if none has failed by then."""
    if device.type != "cuda":
        return None
    found = 0
    size = 8
    while size <= most:
        try:
            step(model, optimizer, made(np.full(size, longest), longest, device), precision, loss_function)
            found, size = size, 2 * size
        except torch.cuda.OutOfMemoryError:
            break
        finally:
            optimizer.zero_grad()
            torch.cuda.empty_cache()
    return found


def run(shape: str, name: str, args, device) -> dict:
    technique = technique_of(name)
    plain = model_of(shape, technique, device)
    config = plain.config
    lengths = lengths_like_squad(args.windows, args.max_length)
    all_weights = technique.method(FAMILIES["bert"]) is None
    ways = [way for way in args.ways if "packed" not in way or not isinstance(plain, PromptModel)]
    rates, shares = {way: [] for way in ways}, {way: [] for way in ways}
    peaks, warm_up = {}, {}
    built, hooks = {}, {}
    for way in ways:
        model = copy.deepcopy(plain)
        if way.startswith("suite"):
            model = quicken(model)
        if WAYS[way][2]:
            model.compile(dynamic=True)
        hooks[way] = hook_of(model)
        if hooks[way]:
            hooks[way].begin(STEPS)
        trained = [p for p in model.parameters() if p.requires_grad]
        built[way] = model.train(), torch.optim.AdamW(trained, lr=1e-5, fused=True)
    for round_ in range(args.rounds + 1):
        for way in ways:
            fixed, precision, _ = WAYS[way]
            model, optimizer = built[way]
            chosen = batches_of("fixed" if fixed else "grouped", lengths, args.batch_size, args.batches)
            ready = []
            for indices in chosen:
                # Tensor cores take multiples of eight.
                width = args.max_length if fixed else -(-int(lengths[indices].max()) // 8) * 8
                ready.append(made(lengths[indices], min(width, args.max_length), device))
            reachable = peak(device, config, args.batch_size * 180)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            settle(device)
            begun = time.perf_counter()
            for number, batch in enumerate(ready, start=1):
                step(model, optimizer, batch, precision, loss_of(way), hooks[way], number)
            settle(device)
            seconds = time.perf_counter() - begun
            # The first round warms up, and compiles.
            if not round_:
                warm_up[way] = round(seconds, 1)
                continue
            rates[way].append(sum(map(len, chosen)) / seconds)
            needed = arithmetic(config, lengths[np.concatenate(chosen)], all_weights)
            shares[way].append(needed / seconds / reachable)
            if device.type == "cuda":
                # Other ways' models lie on the GPU too; a way's own weights and optimizer are part of `held`.
                own = sum(p.numel() * p.element_size() for p in model.parameters())
                own += sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
                peaks[way] = round((torch.cuda.max_memory_allocated() - held + own) / 2**20)
    last = ways[-1]
    return {
        "shape": shape,
        "technique": " ".join([technique.name, *TECHNIQUES.get(name, ("", {}))[1]]),
        "windows_per_second": {way: round(statistics.median(r), 1) for way, r in rates.items()},
        "utilisation": {way: round(statistics.median(s), 3) for way, s in shares.items()},
        "peak_memory_mib": peaks,
        "largest_batch": {
            way: room(*built[way], args.max_length, WAYS[way][1], loss_of(way), device, args.most)
            for way in ways
            if not WAYS[way][2]
        },
        "seconds_of_first_round": warm_up,
        "ratio": {
            way: spread([b / a for a, b in zip(rates[way], rates[last], strict=True)]) for way in ways[:-1]
        },
        "ratio_of": last,
        "batch_size": args.batch_size,
        "max_length": args.max_length,
        "mean_tokens": round(float(lengths.mean()), 1),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "provenance": provenance() | {"torch": torch.__version__},
    }


def markdown(results: list[dict]) -> str:
    lines = [
        "| size | technique | way | windows/s | utilisation | peak MiB | largest batch | last way is faster by |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        for way, rate in r["windows_per_second"].items():
            ratio = r["ratio"].get(way)
            cells = [r["shape"], r["technique"], way, rate, f"{r['utilisation'][way]:.0%}"]
            cells += [r["peak_memory_mib"].get(way, ""), r["largest_batch"].get(way) or ""]
            cells.append(f"{ratio['median']} ({ratio['lowest']} to {ratio['highest']})" if ratio else "")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def table_rows(results: list[dict]) -> Iterator[dict]:
    """For --json: a row for each way, with its speed against that of the first way."""
    for found in results:
        rates = found["windows_per_second"]
        first = next(iter(rates))
        for way, rate in rates.items():
            row = {
                "shape": found["shape"],
                "technique": found["technique"],
                "way": way,
                "windows_per_second": rate,
                "utilisation": round(100 * found["utilisation"][way]),
                "times_first": round(rate / rates[first], 2),
                "peak_mib": found["peak_memory_mib"].get(way),
                # 0: none was tried.
                "largest_batch": found["largest_batch"].get(way) or None,
            }
            yield {name: figure for name, figure in row.items() if figure is not None}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shapes", nargs="+", choices=SHAPES, default=["base", "large"])
    p.add_argument("--techniques", nargs="+", choices=every_technique(), default=list(TECHNIQUES))
    p.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    p.add_argument("--windows", type=int, default=4000, help="an epoch's")
    p.add_argument("--max_length", type=int, default=384)
    p.add_argument("--batch_size", type=int, default=32)
    p.add_argument("--batches", type=int, default=30, help="timed in each round")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--most", type=int, default=2048, help="largest batch that is tried for room")
    p.add_argument("--output", type=Path, default=Path("gpu.json"), help="JSON; .md lies beside it")
    json_flag(p)
    args = p.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for shape in args.shapes:
        for name in args.techniques:
            found.append(run(shape, name, args, device))
            args.output.write_text(json.dumps(found, indent=1) + "\n")
    save_rows(args.json, table_rows(found), device=found[0]["device"])
    table = markdown(found)
    args.output.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
