"""Answering on a CPU: the suite with torch, with ONNX Runtime in fp32 and int8, and the last question-answering pipeline.

The same trained model and the same questions. Latency: questions one by one; throughput: 32 in a call. The pipeline is
that of transformers 4.57, the last release with one, in an environment of its own that this script makes. Ways take
turns; ratios are taken round by round. Needs a registered version and the data it is asked about.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import _path  # noqa: F401
from decoding import provenance
from end_to_end import environment
from table_rows import between, json_flag, save_rows
from training import spread

from common.cli import guarded
from common.paths import ROOT

BATCH = 32

PIPELINE = """
import json, sys, time
from transformers import pipeline
model, questions = sys.argv[1], json.load(open(sys.argv[2]))
ask = pipeline("question-answering", model=model, tokenizer=model)
ask(questions[0])
def timed(size):
    spent = []
    for i in range(0, len(questions), size):
        begun = time.perf_counter()
        # Its own defaults cut windows of 384 tokens with a stride of 128.
        ask(questions[i : i + size], batch_size=size, max_seq_len=int(sys.argv[3]), doc_stride=int(sys.argv[4]))
        spent.append(time.perf_counter() - begun)
    return spent
print(json.dumps([timed(1), timed(int(sys.argv[5]))]))
"""


def timed(answerer, questions: list[dict], size: int) -> list[float]:
    """Seconds of each call, `size` questions a call."""
    spent = []
    for i in range(0, len(questions), size):
        begun = time.perf_counter()
        answerer.answer(questions[i : i + size])
        spent.append(time.perf_counter() - begun)
    return spent


def figures(single: list[float], batched: list[float], n: int) -> dict[str, float]:
    return {
        "median_ms": 1000 * statistics.median(single),
        "p95_ms": 1000 * statistics.quantiles(single, n=20)[-1],
        "questions_per_second": n / sum(batched),
    }


def run(args) -> dict:
    from dataclasses import replace

    from common.data import prepared
    from common.models.bundles import load_bundle, write_info
    from common.models.onnx import ONNX, export
    from common.registry import versions
    from common.serving.extractive_qa import Answerer
    from common.tracking import store

    store.configure()
    test = prepared.load(args.data_dir)[0]["test"].select(range(args.questions)).to_list()
    questions = [{name: e[name] for name in ("question", "context")} for e in test]
    runs: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        bundle, _ = versions.self_contained(args.model, work)
        model, tokenizer, info = load_bundle(bundle, merge=True)
        files = export(model, ("start_logits", "end_logits"), work / "onnx")
        answerers = {"torch": Answerer(bundle)}
        for precision, file in files.items():
            folder = work / precision
            (folder / "base").mkdir(parents=True)
            model.config.save_pretrained(folder / "base")
            tokenizer.save_pretrained(folder / "base")
            file.rename(folder / ONNX)
            write_info(folder, replace(info, runtime=f"onnx-{precision}"))
            answerers[f"ONNX {precision}"] = Answerer(folder)
        for answerer in answerers.values():
            answerer.answer(questions[:1])
        model.save_pretrained(work / "merged")
        tokenizer.save_pretrained(work / "merged")
        (work / "questions.json").write_text(json.dumps(questions))
        python = environment("adapters", args.environments)
        command = [
            python,
            "-c",
            PIPELINE,
            work / "merged",
            work / "questions.json",
            info.settings["max_length"],
            info.settings["doc_stride"],
            BATCH,
        ]
        for _ in range(args.rounds):
            for name, answerer in answerers.items():
                times = timed(answerer, questions, 1), timed(answerer, questions, BATCH)
                runs.setdefault(name, []).append(figures(*times, len(questions)))
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr[-2000:])
            times = json.loads(done.stdout.strip().splitlines()[-1])
            runs.setdefault("pipeline", []).append(figures(*times, len(questions)))
    return {
        "runs": runs,
        "latency_ratio_to_pipeline": {
            name: spread(
                [b["median_ms"] / a["median_ms"] for a, b in zip(own, runs["pipeline"], strict=True)]
            )
            for name, own in runs.items()
        },
        "throughput_ratio_to_pipeline": {
            name: spread(
                [
                    a["questions_per_second"] / b["questions_per_second"]
                    for a, b in zip(own, runs["pipeline"], strict=True)
                ]
            )
            for name, own in runs.items()
        },
        "questions": len(questions),
        "model": args.model,
        "provenance": provenance(),
    }


def markdown(result: dict) -> str:
    lines = [
        "| | latency ms, median | p95 | questions/s, 32 a call | latency against the pipeline | throughput |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, runs in result["runs"].items():
        cells = [f"{statistics.median(r[key] for r in runs):.1f}" for key in runs[0]]
        for ratio in (
            result["latency_ratio_to_pipeline"][name],
            result["throughput_ratio_to_pipeline"][name],
        ):
            cells.append(f"{ratio['median']} times ({ratio['lowest']} to {ratio['highest']})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def rows(result: dict) -> Iterator[dict]:
    """For --json: medians of each way, and how many times as good it is as the pipeline."""
    fields = {"latency_ms": "median_ms", "p95_ms": "p95_ms", "questions_per_second": "questions_per_second"}
    for way, runs in result["runs"].items():
        row = {"way": way} | {
            field: statistics.median(run[name] for run in runs) for field, name in fields.items()
        }
        if way != "pipeline":
            row |= between("latency_times", result["latency_ratio_to_pipeline"][way])
            row |= between("throughput_times", result["throughput_ratio_to_pipeline"][way])
        yield row


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="models:/bert-squad-qa@champion")
    p.add_argument("--data_dir", default=str(ROOT / "squad_data"))
    p.add_argument("--questions", type=int, default=500)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument(
        "--environments", type=Path, default=ROOT / ".environments", help="where the pipeline's is kept"
    )
    p.add_argument("--output", type=Path, default=Path("answering.json"), help="JSON; .md lies beside it")
    json_flag(p)
    args = p.parse_args()
    result = run(args)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    save_rows(
        args.json, rows(result), data=f"{args.questions} questions of {args.data_dir}", model=args.model
    )
    table = markdown(result)
    args.output.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    sys.exit(guarded(main))
