"""Memory of one served base with N adapters, against N models that are served each by itself.

Adapters of the five techniques, and more LoRA ones, are made on a checkpoint with random values, as memory does not depend
on them. Each measurement is a process of its own that loads, answers one question with every model, and reports how much
its private memory (USS) grew since the libraries were imported. Prints JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import _path  # noqa: F401
import psutil
from decoding import provenance
from table_rows import json_flag, save_rows

ASKED = {"question": "What does the heart do?", "context": "The heart pumps blood through the body. " * 10}


def make(checkpoint_name: str, n: int, folder: Path) -> int:
    """Write a base and n adapters as side_by_side.py wants them; returns the bytes of the adapters' weights."""
    import torch

    from common.api.technique_scripts import techniques
    from common.models import base, bundles, saving

    checkpoint = base.resolve_checkpoint(checkpoint_name)
    family = base.family_of(base.load_config(checkpoint).model_type)
    print_ = saving.save_base(checkpoint, folder / "base")
    kinds = techniques()
    methods = {key: kind().method(family) for key, kind in kinds.items() if not kind.needs}
    keys = [key for key, method in methods.items() if method is not None]
    for i in range(n):
        key = keys[i] if i < len(keys) else "lora"
        torch.manual_seed(i)
        model, tokenizer = base.load_base(checkpoint)
        method = kinds[key]().method(family)
        model = base.apply(method, model, family)
        info = bundles.BundleInfo(
            f"{kinds[key].name} {i}", family.model_type, checkpoint.name, print_, "extractive-qa", "QuestionAnswering",
            {
                "version": "v1.1", "max_length": 384, "doc_stride": 128, "max_answer_length": 30, "n_best": 20,
                "null_threshold": 0.0,
            },
        )  # fmt: skip
        saving.save_bundle(folder / "adapters" / f"{i:02d}", info, model, tokenizer, method)
    return sum(f.stat().st_size for f in folder.glob("adapters/*/adapter/*.safetensors"))


def load(folder: Path, mode: str, n: int) -> dict:
    """In a fresh process: MiB that n adapters take, on one base ("together") or merged into one each ("apart")."""
    import shutil

    from common.serving import extractive_qa, side_by_side

    process = psutil.Process()
    before = process.memory_full_info().uss
    with tempfile.TemporaryDirectory() as scratch:
        adapters = sorted((folder / "adapters").iterdir())[:n]
        if mode == "together":
            kept = Path(scratch)
            (kept / "base").symlink_to(folder / "base")
            for adapter in adapters:
                shutil.copytree(adapter, kept / "adapters" / adapter.name)
            held = side_by_side.SideBySide(kept)
            held.answer([ASKED], side_by_side.ALL)
        else:
            held = [extractive_qa.Answerer(adapter, folder / "base") for adapter in adapters]
            for answerer in held:
                answerer.answer([ASKED])
    after = process.memory_full_info().uss
    return {"mib": (after - before) / 2**20, "models": len(adapters), "before_mib": before / 2**20}


def measure(folder: Path, mode: str, n: int, repeats: int) -> float:
    command = [sys.executable, __file__, "--load", str(folder), mode, str(n)]
    found = []
    for _ in range(repeats):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1])["mib"])
    return statistics.median(found)


def rows(found: dict[str, float], n: int) -> Iterator[dict]:
    """For --json: MiB of one model, of n, and of each further one."""
    ways = {"one base, `bert-squad-qa-all`": "together", "a model each, merged": "apart"}
    for way, mode in ways.items():
        one, all_ = found[f"{mode} 1"], found[f"{mode} {n}"]
        yield {"way": way, "one_mib": one, "six_mib": all_, "further_mib": (all_ - one) / (n - 1)}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model_checkpoint", default="embedded")
    p.add_argument("--adapters", type=int, default=6)
    p.add_argument("--repeats", type=int, default=3, help="processes of each kind; the median counts")
    p.add_argument("--output", type=Path, help="write the JSON here too")
    json_flag(p)
    p.add_argument("--load", nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.load:
        folder, mode, n = args.load
        print(json.dumps(load(Path(folder), mode, int(n))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size = make(args.model_checkpoint, args.adapters, folder)
        weights = sum(f.stat().st_size for f in (folder / "base").glob("*.safetensors"))
        found = {
            f"{mode} {n}": measure(folder, mode, n, args.repeats)
            for mode, n in (
                ("apart", 1),
                ("together", 1),
                ("together", args.adapters),
                ("apart", args.adapters),
            )
        }
    report = {
        "checkpoint": args.model_checkpoint,
        "base_weights_mib": weights / 2**20,
        "adapter_weights_mib": size / 2**20,
        "grown_mib": found,
        "provenance": provenance(),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")
    save_rows(
        args.json,
        rows(found, args.adapters),
        data=f"{args.adapters} adapters, one question",
        model=args.model_checkpoint,
    )


if __name__ == "__main__":
    main()
