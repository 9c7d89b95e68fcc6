"""Adapters that one server opens when they are first asked for: seconds of a cold start, milliseconds warm, memory of each.

LoRA adapters with random values, as neither time nor memory depends on them, are logged and registered in a store of their
own. A server is started with one; the others are asked for one after another by X-Model: first the question that opens
them, then the same question --warm times. Three ways: adapters of one base, whose weights are in memory once; adapters that
each bring a base of their own; and a server for each adapter, merged, which is started and stopped. Prints JSON.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import _path  # noqa: F401
import psutil
from decoding import provenance
from load import serve
from table_rows import json_flag, save_rows

from common.cli import guarded

ASKED = {"question": "What does the heart do?", "context": "The heart pumps blood through the body. " * 10}
MIB = 2**20


def register(checkpoint_name: str, names: list[str], folder: Path, own_bases: bool) -> None:
    """Log an adapter for each name, and register it with the alias champion."""
    import mlflow
    import torch

    from common.api.technique_scripts import techniques
    from common.models import base, bundles, saving
    from common.serving import model_logging
    from common.tracking import runs

    checkpoint, client = base.resolve_checkpoint(checkpoint_name), mlflow.MlflowClient()
    lora = techniques()["lora"]()
    family = base.family_of(base.load_config(checkpoint).model_type)
    for number, name in enumerate(names):
        torch.manual_seed(number)
        place = folder / name
        print_ = saving.save_base(checkpoint, place / "base")
        if own_bases:
            file = place / "base" / "config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"copy": number}))
            print_ = bundles.fingerprint(place / "base")
        model, tokenizer = base.load_base(checkpoint)
        model = base.apply(lora.method(family), model, family)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn(parameter.shape))
        info = bundles.BundleInfo(
            lora.name, family.model_type, checkpoint.name, print_, "extractive-qa", "QuestionAnswering",
            {
                "version": "v1.1", "max_length": 384, "doc_stride": 128, "max_answer_length": 30, "n_best": 20,
                "null_threshold": 0.0,
            },
        )  # fmt: skip
        saving.save_bundle(place / "bundle", info, model, tokenizer)
        with runs.start("on demand", name, {}) as run:
            uri = model_logging.log_model(run, place / "bundle", place / "base", ASKED, {})
        client.create_registered_model(name)
        client.create_model_version(name, uri, run.id)
        client.set_registered_model_alias(name, "champion", "1")


def asked(address: str, name: str = "") -> float:
    """Seconds of one question."""
    headers = {"Content-Type": "application/json"} | ({"X-Model": name} if name else {})
    body = json.dumps({"inputs": [ASKED]}).encode()
    begun = time.perf_counter()
    request = urllib.request.Request(f"{address}/invocations", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
    return time.perf_counter() - begun


def memory(pid: int) -> float:
    """Private MiB of a process and all below it."""
    top = psutil.Process(pid)
    return sum(each.memory_full_info().uss for each in (top, *top.children(recursive=True))) / MIB


def measured(names: list[str], warm: int, folder: Path, further: bool) -> dict[str, list[float]]:
    """Of each model: seconds cold, milliseconds warm (the median of its questions), and MiB that it added; with further, of
    those that a server opens beside the first one."""
    found: dict[str, list[float]] = {"cold_s": [], "warm_ms": [], "mib": []}
    settings = {"SERVING_MODELS": "adapter-*@champion"} if further else {}
    begun = time.perf_counter()
    server, address = serve(f"models:/{names[0]}@champion", 1, folder / "server.log", **settings)
    try:
        asked(address)
        started = time.perf_counter() - begun
        for _ in range(warm):
            asked(address)
        before = memory(server.pid) if further else 0.0
        for name in names[1:] if further else [""]:
            first = asked(address, name) if further else started
            found["cold_s"].append(first)
            found["warm_ms"].append(1000 * statistics.median(asked(address, name) for _ in range(warm)))
            found["mib"].append(memory(server.pid) - before)
            before += found["mib"][-1] if further else 0.0
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)
    return found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model_checkpoint", default="embedded")
    p.add_argument("--adapters", type=int, default=6, help="that are opened beside the first one")
    p.add_argument("--warm", type=int, default=20, help="questions to each once it is open")
    p.add_argument("--servers", type=int, default=3, help="that are started for one adapter each")
    json_flag(p)
    args = p.parse_args()
    import mlflow

    from common.tracking.store import configure

    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as work:
        for way, own_bases in (("one base", False), ("a base each", True)):
            folder = Path(work) / way.replace(" ", "-")
            folder.mkdir()
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
            mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
            configure()
            names = [f"adapter-{number}" for number in range(args.adapters + 1)]
            register(args.model_checkpoint, names, folder, own_bases)
            found[f"one server, {way}"] = measured(names, args.warm, folder, further=True)
        alone = [measured([name], args.warm, folder, further=False) for name in names[: args.servers]]
        found["a server each"] = {what: [each[what][0] for each in alone] for what in alone[0]}
    rows = [
        {"way": way}
        | {what: statistics.median(values) for what, values in each.items()}
        | {f"{what}_{end.__name__}": end(values) for what, values in each.items() for end in (min, max)}
        for way, each in found.items()
    ]
    print(json.dumps({"rows": rows, "provenance": provenance()}, indent=1))
    data = f"{args.adapters} further LoRA adapters, one question"
    save_rows(args.json, rows, data=data, model=args.model_checkpoint)


if __name__ == "__main__":
    sys.exit(guarded(main))
