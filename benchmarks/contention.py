"""What one busy process beside a training costs it, by how torch's threads wait for each other, and what each way costs alone.

  python benchmarks/contention.py --output results/bench/contention.json
  python benchmarks/contention.py --quick

Each setting has a process of its own, which trains LoRA on the packaged model and sample; they take turns, one at a time, each
alone and then beside processes that only compute. Medians of rounds: `slowdown` is beside against alone, `alone` is
against `default` alone in the same round. `default` is OpenMP's own, `suite` what the project sets. Every setting must end with
the same weights as the default (but for other numbers of threads), and the last column says whether it did.
"""

import argparse
import ctypes
import hashlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _path  # noqa: F401

SETTINGS = {
    "default": {},
    "suite": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "spin 3,000": {"GOMP_SPINCOUNT": "3000"},
    "spin 4,000": {"GOMP_SPINCOUNT": "4000"},
    "spin 5,000": {"GOMP_SPINCOUNT": "5000"},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000"},
    "spin 100,000": {"GOMP_SPINCOUNT": "100000"},
    "dynamic": {"OMP_DYNAMIC": "TRUE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
INTEL = {"blocktime 0": {"KMP_BLOCKTIME": "0"}}
"""For a torch that brings Intel's OpenMP, which does not know GOMP_SPINCOUNT."""

QUICK = ("default", "suite", "passive", "spin 1,000", "spin 10,000", "one thread")
BUSY = "while True: pass"


class Trainer:
    """A process that trains in one setting, when it is its turn."""

    def __init__(self, name: str, data_dir: Path, args):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))}
        threads = {"OMP_NUM_THREADS": str(args.threads)} if args.threads else {}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--train", name, str(data_dir), str(args.steps), str(args.batch_size)],
            env=kept | threads | (SETTINGS | INTEL)[name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.weights = self._read()

    def seconds(self) -> float:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a training ended with {self.process.wait()}")
        return line.strip()


def train(name: str, data_dir: str, steps: str, batch_size: str) -> None:
    """In a process of a setting: print a hash of the weights after some steps, then the seconds of as many at each line read."""
    # Torch's OpenMP reads its settings while it is loaded: those of `common` come too late for what imports torch before it.
    importlib.import_module("common" if name == "suite" else "torch")
    import numpy as np
    import torch
    from training import batches_of, technique_of, train_on

    from common.data import prepared
    from common.models import base as models
    from common.models.cpu_kernels import keep_memory, quicken
    from common.models.families import family_of, uses_segment_ids
    from common.tasks.batching import Collator
    from common.tasks.extractive_qa.windows import make_windows

    torch.manual_seed(0)
    splits, _ = prepared.load(data_dir)
    base, tokenizer = models.load_base(models.resolve_checkpoint("embedded"))
    family = family_of(base.config.model_type)
    windows = make_windows(
        tokenizer,
        splits["train"].to_list(),
        max_length=256,
        doc_stride=64,
        segment_ids=uses_segment_ids(base.config),
    )
    model = quicken(models.apply(technique_of("lora").method(family), base, family)).train()
    keep_memory()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    chosen = batches_of("suite", np.asarray(windows.lengths), int(batch_size), int(steps))
    ready = [Collator(tokenizer.pad_token_id)([windows[i] for i in batch]) for batch in chosen]
    train_on(ready, model, optimizer)
    weights = b"".join(p.detach().numpy().tobytes() for p in trained)
    print(hashlib.sha256(weights).hexdigest(), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        train_on(ready, model, optimizer)
        print(time.perf_counter() - started, flush=True)


def measure(names: list[str], data_dir: Path, args) -> dict[str, dict]:
    trainers, busy = {}, []
    found = {name: {"alone": [], "beside": []} for name in names}
    try:
        for name in names:
            trainers[name] = Trainer(name, data_dir, args)
        for round_ in range(args.rounds):
            # Each goes first at times.
            turn = names[round_ % len(names) :] + names[: round_ % len(names)]
            for name in turn:
                found[name]["alone"].append(trainers[name].seconds())
            busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(args.busy)]
            time.sleep(0.5)
            for name in turn:
                found[name]["beside"].append(trainers[name].seconds())
            for process in busy:
                process.kill()
                process.wait()
            print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr)
    finally:
        for process in (*busy, *(trainer.process for trainer in trainers.values())):
            process.kill()
            process.wait()
    for name in names:
        found[name]["weights"] = trainers[name].weights
    return found


def summary(found: dict[str, dict]) -> dict[str, dict]:
    """The figures of each setting's row."""
    default = found["default"]
    ratio = lambda a, b: statistics.median(x / y for x, y in zip(a, b, strict=True))  # noqa: E731
    return {
        name: {
            "seconds": statistics.median(each["alone"]),
            "slowdown": ratio(each["beside"], each["alone"]),
            "worst": max(x / y for x, y in zip(each["beside"], each["alone"], strict=True)),
            "alone": ratio(each["alone"], default["alone"]),
            "beside": ratio(each["beside"], default["beside"]),
            "same": each["weights"] == default["weights"],
        }
        for name, each in found.items()
    }


def markdown(rows: dict[str, dict]) -> str:
    lines = [
        "| setting | s alone | slowdown beside | worst round | alone / default | beside / default | same weights |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, row in rows.items():
        figures = " | ".join(f"{row[k]:.2f}" for k in ("seconds", "slowdown", "worst"))
        figures += " | " + " | ".join(f"{row[k]:.3f}" for k in ("alone", "beside"))
        lines.append(f"| {name} | {figures} | {'yes' if row['same'] else 'no'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="fewer settings, steps and rounds: under 5 minutes")
    p.add_argument("--settings", nargs="+", choices=[*SETTINGS, *INTEL], help="`default` is always there")
    p.add_argument("--rounds", type=int, help="default: 9, 5 if quick")
    p.add_argument("--steps", type=int, help="of a training each time; default: 12, 6 if quick")
    p.add_argument("--batch_size", type=int, default=8)
    p.add_argument("--busy", type=int, default=1, help="processes that compute beside it")
    p.add_argument("--threads", type=int, help="of the training; default: OpenMP's, one for each core")
    p.add_argument("--output", type=Path, help="JSON; .md lies beside it")
    # Not at the top: a training's process must not import `common` before its turn.
    from table_rows import json_flag, save_rows

    json_flag(p)
    args = p.parse_args()
    args.rounds = args.rounds or (5 if args.quick else 9)
    args.steps = args.steps or (6 if args.quick else 12)
    names = args.settings or list(QUICK if args.quick else SETTINGS)
    if intel() and not args.settings:
        names += INTEL
    names = list(dict.fromkeys(["default", *names]))
    from common.data import questions

    with tempfile.TemporaryDirectory() as scratch:
        questions.prepare_sample(Path(scratch) / "data")
        found = measure(names, Path(scratch) / "data", args)
    rows = summary(found)
    table = markdown(rows)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({"rows": rows, "rounds": found}, indent=1) + "\n")
        args.output.with_suffix(".md").write_text(table)
    print(table)
    save_rows(
        args.json,
        ({"setting": name, **row} for name, row in rows.items()),
        data=f"packaged sample, {args.steps} steps of batches of {args.batch_size}, medians of {args.rounds} rounds",
        model="embedded with LoRA",
    )


def intel() -> bool:
    """Whether this torch brings Intel's OpenMP."""
    import torch

    del torch
    return hasattr(ctypes.CDLL(None), "kmp_set_blocktime")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(*sys.argv[2:])
    else:
        from common.cli import guarded

        sys.exit(guarded(main))
