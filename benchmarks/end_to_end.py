"""Questions in, scores out: the suite's scripts against the peers, as whole processes on the same questions and weights.

`recipe` is the Hugging Face documentation's way (fixed padding, Trainer, its post-processing), `peft` the same with PEFT
used plainly, `adapters` with the adapters library; each in an environment of its own, made by this script with pip on the
first run. The suite's processes do more: they log to MLflow, evaluate on a few validation questions and store a model that
can be served. Ways take turns; ratios are taken round by round. Writes JSON, and a Markdown table beside it.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import _path  # noqa: F401
from decoding import provenance
from table_rows import between, json_flag, save_rows
from training import TECHNIQUES, spread, technique_of

from common.api.technique_scripts import technique_scripts
from common.cli import guarded
from common.models import base
from common.paths import ROOT
from common.scoring.bootstrap import bootstrap_interval
from common.scoring.squad import score_examples

HERE = Path(__file__).parent
ENVIRONMENTS = {
    "huggingface": (
        "torch==2.13.0",
        "transformers==5.23.0",
        "peft==0.21.2",
        "datasets==5.2.0",
        "accelerate==1.15.0",
    ),
    "adapters": (
        "torch==2.13.0",
        "adapters==1.3.0",
        "transformers==4.57.6",
        "datasets==4.4.1",
        "accelerate==1.15.0",
    ),
    "locust": ("locust==2.47.0",),
    "optimum": (
        "torch==2.13.0",
        "optimum-onnx[onnxruntime]==0.1.0",
        "transformers==4.57.6",
        "onnx==1.23.2",
        "onnxruntime==1.31.1",
    ),
}
PEERS = {
    "recipe": ("huggingface", "none"),
    "peft": ("huggingface", "peft"),
    "adapters": ("adapters", "adapters"),
}
KNOWN_TO_ADAPTERS = ("lora", "prefix", "ia3")
SETTINGS = {"max_length": 384, "doc_stride": 128}


def environment(name: str, folder: Path) -> Path:
    """The Python of a peer's environment, which is made where it is missing."""
    place, done = folder / name, folder / name / "done"
    if not done.is_file() or done.read_text().split() != list(ENVIRONMENTS[name]):
        shutil.rmtree(place, ignore_errors=True)
        print(f"Making the environment {place} ...", file=sys.stderr, flush=True)
        venv.create(place, with_pip=True)
        # torch by itself first: together with others pip fetches the build for GPUs.
        for packages in filter(None, (ENVIRONMENTS[name][:1], ENVIRONMENTS[name][1:])):
            command = [place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(command, check=True)
        done.write_text("\n".join(ENVIRONMENTS[name]))
    return place / "bin" / "python"


def excerpt(file: Path, n: int, output: Path) -> list[dict]:
    """n questions of a file in the official format, evenly spread over it, as one; their ids and answers."""
    try:
        content, references = json.loads(file.read_text(encoding="utf-8")), []
    except (OSError, ValueError) as e:
        sys.exit(f"{file}: SQuAD v1.1 JSON is needed ({e}).")
    total = sum(len(p["qas"]) for article in content["data"] for p in article["paragraphs"])
    if total < n:
        sys.exit(f"{file} holds only {total} questions.")
    place = itertools.count()
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = [qa for qa in paragraph["qas"] if next(place) * n % total < n]
            references += [
                {"id": qa["id"], "answers": {"text": [a["text"] for a in qa["answers"]]}}
                for qa in paragraph["qas"]
            ]
        article["paragraphs"] = [p for p in article["paragraphs"] if p["qas"]]
    content["data"] = [article for article in content["data"] if article["paragraphs"]]
    output.write_text(json.dumps(content))
    return references


def run_suite(technique: str, args, work: Path, data: Path) -> dict:
    """One run of a technique's script in a store of its own; its figures as the script logged them."""
    import mlflow

    uri = f"sqlite:///{work / 'mlflow.db'}"
    settings = SETTINGS | {
        "batch_size": args.batch_size,
        "seed": args.seed,
        "data_dir": data,
        "model_checkpoint": args.model,
        "num_train_epochs": args.epochs,
        "max_validation_samples": args.validation_questions,
        "logging_steps": 1,
        "experiment_name": "benchmark",
        "output_dir": work / "out",
    }
    key, options = TECHNIQUES[technique]
    flags = [text for name, value in (settings | options).items() for text in (f"--{name}", str(value))]
    script = technique_scripts()[key][1]
    begun, clock = time.perf_counter(), time.time()
    call([sys.executable, script, *flags], MLFLOW_TRACKING_URI=uri)
    process = time.perf_counter() - begun
    mlflow.set_tracking_uri(uri)
    (found,) = mlflow.search_runs(experiment_names=["benchmark"], max_results=1, output_format="list")
    metrics = found.data.metrics
    first = mlflow.MlflowClient().get_metric_history(found.info.run_id, "train_loss")[0].timestamp / 1000
    trained = metrics["train_samples_per_second"] * metrics["training_seconds"]
    return {
        "seconds": {
            "process": process,
            "first_step": first - clock,
            "training": metrics["training_seconds"],
            "evaluation": metrics["evaluation_seconds"],
        },
        "train_windows": round(trained),
        "test_windows": round(metrics["evaluation_samples_per_second"] * metrics["evaluation_seconds"]),
        "peak_memory_mib": metrics["peak_memory_mib"],
        "size_mib": metrics["adapter_mib"],
        "f1": [metrics[f"test_f1{end}"] for end in ("", "_low", "_high")],
    }


def run_peer(peer: str, technique: str, args, work: Path, files: tuple[Path, Path], references: list) -> dict:
    """One run of recipe.py in a peer's environment."""
    name, library = PEERS[peer]
    flags = SETTINGS | {
        "batch_size": args.batch_size,
        "seed": args.seed,
        "library": library,
        "technique": technique,
        "model": args.model_folder,
        "train": files[0],
        "test": files[1],
        "output": work,
        "epochs": args.epochs,
        "learning_rate": technique_of(technique).rates.small.value,
    }
    python = environment(name, args.environments)
    command = [python, HERE / "recipe.py", *(t for k, v in flags.items() for t in (f"--{k}", str(v)))]
    begun = time.perf_counter()
    # Its data sets' cache would spare later rounds the tokenization.
    printed = call(command, HF_HOME=str(work / "hf"))
    process = time.perf_counter() - begun
    found = json.loads(printed.strip().splitlines()[-1])
    found["seconds"]["process"] = process
    predictions = json.loads((work / "predictions.json").read_text())
    each = 100 * score_examples(predictions, references, "v1.1")["f1"]
    found["f1"] = [each.mean(), *bootstrap_interval(each)]
    return found


def call(command: list, **more: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", **more},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} left with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def run(args) -> dict:
    args.model_folder = base.resolve_checkpoint(args.model).source
    runs: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        files = (work / "train.json", work / "test.json")
        excerpt(args.train_file, args.questions, files[0])
        references = excerpt(args.test_file, args.test_questions, files[1])
        data = work / "data"
        prepare = [sys.executable, ROOT / "scripts" / "prepare_data.py", "--source", "files"]
        call([*prepare, "--train_file", files[0], "--test_file", files[1], "--output_dir", data])
        # Peers train on what is left beside validation, like the suite.
        import datasets

        kept = set(datasets.load_from_disk(str(data))["train"]["id"])
        content = json.loads(files[0].read_text())
        for paragraph in (p for article in content["data"] for p in article["paragraphs"]):
            paragraph["qas"] = [qa for qa in paragraph["qas"] if qa["id"] in kept]
        files[0].write_text(json.dumps(content))
        for round_ in range(args.rounds):
            for technique in args.techniques:
                for peer in ("suite", *args.peers):
                    if (peer == "recipe") != (technique == "standard") and peer != "suite":
                        continue
                    if peer == "adapters" and technique not in KNOWN_TO_ADAPTERS:
                        continue
                    place = work / f"{peer}-{technique}-{round_}"
                    place.mkdir()
                    if peer == "suite":
                        found = run_suite(technique, args, place, data)
                    else:
                        found = run_peer(peer, technique, args, place, files, references)
                    runs.setdefault(f"{technique}: {peer}", []).append(found)
                    print(f"{technique}: {peer}: {json.dumps(found)}", file=sys.stderr, flush=True)
                    shutil.rmtree(place)
    ratios = {}
    for name, theirs in runs.items():
        technique, peer = name.split(": ")
        if peer != "suite":
            ours = runs[f"{technique}: suite"]
            ratios[name] = {
                phase: spread(
                    [b["seconds"][phase] / a["seconds"][phase] for a, b in zip(ours, theirs, strict=True)]
                )
                for phase in ("process", "training", "evaluation", "first_step")
            }
    return {
        "ratios_of_seconds": ratios,
        "runs": runs,
        "questions": len(kept) * args.epochs,
        "test_questions": args.test_questions,
        "model": args.model,
        "batch_size": args.batch_size,
        "seed": args.seed,
        **SETTINGS,
        "provenance": provenance() | {"threads": os.cpu_count(), "environments": ENVIRONMENTS},
    }


def markdown(result: dict) -> str:
    """Medians of each way, and by how much the suite is faster."""
    lines = [
        "| technique | way | whole process s | suite is faster by | to first step s | training windows/s | evaluation windows/s "
        "| peak MiB | on disk MiB | F1 [95%] |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, runs in result["runs"].items():
        technique, way = name.split(": ")

        def median(value, runs=runs):
            return statistics.median(map(value, runs))

        f1, low, high = (median(lambda r, i=i: r["f1"][i]) for i in range(3))
        ratio = result["ratios_of_seconds"].get(name, {}).get("process")
        faster = f"{ratio['median']} ({ratio['lowest']} to {ratio['highest']})" if ratio else ""
        lines.append(
            f"| {technique} | {way} | {median(lambda r: r['seconds']['process']):.0f} | {faster} "
            f"| {median(lambda r: r['seconds']['first_step']):.1f} "
            f"| {median(lambda r: r['train_windows'] / r['seconds']['training']):.2f} "
            f"| {median(lambda r: r['test_windows'] / r['seconds']['evaluation']):.2f} "
            f"| {median(lambda r: r['peak_memory_mib']):.0f} | {median(lambda r: r['size_mib']):.2f} "
            f"| {f1:.1f} [{low:.1f}, {high:.1f}] |"
        )
    return "\n".join(lines) + "\n"


def rows(result: dict) -> Iterator[dict]:
    """For --json: medians of each way, and of a peer by how much the suite is faster."""
    for name, runs in result["runs"].items():
        technique, way = name.split(": ")
        ratios = result["ratios_of_seconds"].get(name, {})
        measured = {
            "seconds": lambda r: r["seconds"]["process"],
            "training_seconds": lambda r: r["seconds"]["training"],
            "first_step_seconds": lambda r: r["seconds"]["first_step"],
            "training_windows_per_second": lambda r: r["train_windows"] / r["seconds"]["training"],
            "evaluation_windows_per_second": lambda r: r["test_windows"] / r["seconds"]["evaluation"],
            "peak_mib": lambda r: r["peak_memory_mib"],
            "adapter_mib": lambda r: r["size_mib"],
            "f1": lambda r: r["f1"][0],
            "f1_low": lambda r: r["f1"][1],
            "f1_high": lambda r: r["f1"][2],
        }
        yield (
            {"technique": technique_of(technique).name, "way": way}
            | {field: statistics.median(map(value, runs)) for field, value in measured.items()}
            | between("faster", ratios.get("process"))
            | between("training_faster", ratios.get("training"))
            | between("evaluation_faster", ratios.get("evaluation"))
        )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--train_file", type=Path, required=True, help="SQuAD v1.1 JSON")
    p.add_argument("--test_file", type=Path, required=True, help="SQuAD v1.1 JSON")
    p.add_argument("--techniques", nargs="+", choices=TECHNIQUES, default=["standard", "lora", "loha", "ia3"])
    p.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    p.add_argument("--model", default="embedded", help="embedded, or a local folder with a BERT")
    p.add_argument("--questions", type=int, default=500, help="for training and validation")
    p.add_argument("--test_questions", type=int, default=300)
    p.add_argument(
        "--validation_questions",
        type=int,
        default=8,
        help="of the suite, which keeps the best epoch; with several epochs, hundreds, or chance chooses",
    )
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument(
        "--environments", type=Path, default=ROOT / ".environments", help="where the peers' are kept"
    )
    p.add_argument("--output", type=Path, default=Path("end_to_end.json"), help="JSON; .md lies beside it")
    json_flag(p)
    args = p.parse_args()
    result = run(args)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    asked = f"{result['questions']} training and {result['test_questions']} test questions of {args.train_file.name}"
    save_rows(args.json, rows(result), data=asked, model=args.model, seeds=[args.seed])
    table = markdown(result)
    args.output.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    sys.exit(guarded(main))
