"""Decoding speed: the suite's exact best spans against Hugging Face's `postprocess_qa_predictions`.

Both turn the same logits into answers and n-best lists of 20, in turn, in one process. Each gets its inputs as its
own pipeline has them: the suite in batches of 64 windows of like length, padded to the longest; the other padded to
384, with examples and features in `datasets`. It is also measured with both in plain lists, which it is never called
with, to tell its algorithm from its reading. The suite cuts the texts of its lists out of the context when they are
read: it is measured without and with reading each of them. Prints JSON.
"""

import argparse
import gc
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import _path  # noqa: F401
import datasets
import numpy as np
from peers import postprocess_qa_predictions
from table_rows import between, json_flag, save_rows

from common.paths import ROOT
from common.tasks.extractive_qa.spans import Prediction, best_spans, concatenate, decode

LENGTH, STRIDE, BATCH = 384, 128, 64


def synthetic(features: int, seed: int) -> dict:
    """Questions whose contexts have SQuAD's spread of lengths, and logits as a trained model's: high at the starts
    and ends of a few candidate answers, low elsewhere, lowest outside the context."""
    rng = np.random.default_rng(seed)
    contexts, offsets, example_index = [], [], []
    while len(offsets) < features:
        tokens = int(np.clip(rng.lognormal(np.log(140), 0.45), 25, 700))
        question = int(rng.integers(8, 25))
        lengths = rng.integers(1, 10, tokens)
        ends = np.cumsum(lengths + 1) - 1
        words = np.stack([ends - lengths, ends], axis=1).astype(np.int32)
        letters = rng.integers(97, 123, ends[-1], dtype=np.uint8)
        letters[ends[:-1]] = 32
        room = LENGTH - question - 3
        for begin in range(0, max(1, tokens - STRIDE), room - STRIDE):
            window = np.full((LENGTH, 2), -1, dtype=np.int32)
            part = words[begin : begin + room]
            window[question + 2 : question + 2 + len(part)] = part
            offsets.append(window)
            example_index.append(len(contexts))
        contexts.append(letters.tobytes().decode())
    offsets = offsets[:features]
    example_index = np.array(example_index[:features])
    mask = np.stack([window[:, 1] >= 0 for window in offsets])
    start, end = (
        np.where(mask, rng.normal(-5, 2, mask.shape), rng.normal(-9, 1, mask.shape)) for _ in range(2)
    )
    for row in range(features):
        context = np.flatnonzero(mask[row])
        for peak in rng.normal(4, 2, 4):
            first = rng.choice(context)
            last = min(first + rng.geometric(0.35) - 1, context[-1])
            start[row, first], end[row, last] = peak + rng.normal(), peak + rng.normal()
    start[:, 0], end[:, 0] = rng.normal(-3, 3, (2, features))
    return {
        "contexts": contexts,
        "ids": [f"question-{i}" for i in range(len(contexts))],
        "offsets": offsets,
        "example_index": example_index,
        "mask": mask,
        "start": start.astype(np.float32),
        "end": end.astype(np.float32),
    }


def suite_inputs(data: dict) -> list[tuple]:
    """(start logits, end logits, context mask, window indices) of each batch."""
    lengths = LENGTH - np.argmax(data["mask"][:, ::-1], axis=1) + 1
    order = np.argsort(-lengths, kind="stable")
    batches = []
    for begin in range(0, len(order), BATCH):
        indices = order[begin : begin + BATCH]
        length = min(LENGTH, lengths[indices[0]])
        logits = (np.ascontiguousarray(data[name][indices, :length]) for name in ("start", "end", "mask"))
        batches.append((*logits, indices))
    return batches


def suite(data: dict, batches: list[tuple], null_threshold: float | None) -> list[Prediction]:
    spans = concatenate(
        [best_spans(start, end, mask, windows=indices) for start, end, mask, indices in batches]
    )
    return decode(
        spans,
        data["offsets"],
        data["example_index"],
        data["contexts"],
        data["ids"],
        null_threshold=null_threshold,
    )


def suite_with_texts(data: dict, batches: list[tuple], null_threshold: float | None) -> tuple[list, list]:
    predictions = suite(data, batches, null_threshold)
    return predictions, [prediction.n_best.text for prediction in predictions]


def peer_inputs(data: dict) -> tuple[list[dict], list[dict]]:
    examples = [{"id": id_, "context": text} for id_, text in zip(data["ids"], data["contexts"], strict=True)]
    features = [
        {
            "example_id": data["ids"][example],
            "offset_mapping": [None if end < 0 else (begin, end) for begin, end in window.tolist()],
            "input_ids": [0] * LENGTH,
            "token_type_ids": [0] * LENGTH,
            "attention_mask": [0] * LENGTH,
        }
        for example, window in zip(data["example_index"], data["offsets"], strict=True)
    ]
    return examples, features


def timed(function: Callable, *arguments):
    gc.collect()
    begin = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - begin, result


def compare(data: dict, version_2: bool, repeats: int) -> dict:
    """Seconds of either, their ratios, and how often they give the same answer."""
    batches, in_lists, logits = suite_inputs(data), peer_inputs(data), (data["start"], data["end"])
    in_datasets = tuple(datasets.Dataset.from_list(rows) for rows in in_lists)
    null_threshold = 0.0 if version_2 else None
    own, with_texts, peer, peer_in_lists = [], [], [], []
    for _ in range(repeats):
        spent, (answers, n_best, _) = timed(postprocess_qa_predictions, *in_datasets, logits, version_2)
        peer.append(spent)
        spent, predictions = timed(suite, data, batches, null_threshold)
        own.append(spent)
        spent, _ = timed(suite_with_texts, data, batches, null_threshold)
        with_texts.append(spent)
        spent, _ = timed(postprocess_qa_predictions, *in_lists, logits, version_2)
        peer_in_lists.append(spent)
    return {
        "ratio": ratios(peer, own),
        "ratio_with_texts": ratios(peer, with_texts),
        "ratio_to_plain_lists": ratios(peer_in_lists, own),
        "ratio_to_plain_lists_with_texts": ratios(peer_in_lists, with_texts),
        "seconds": {
            "suite": spread(own),
            "suite_with_texts": spread(with_texts),
            "postprocess_qa_predictions": spread(peer),
            "postprocess_qa_predictions_on_plain_lists": spread(peer_in_lists),
        },
        "same_answers": sum(prediction.text == answers[prediction.id] for prediction in predictions),
        "questions": len(predictions),
        "n_best_entries": {
            "suite": sum(len(prediction.n_best) for prediction in predictions),
            "postprocess_qa_predictions": sum(map(len, n_best.values())),
        },
    }


def ratios(theirs: list[float], ours: list[float]) -> dict[str, float]:
    return spread([their / our for their, our in zip(theirs, ours, strict=True)])


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def provenance() -> dict:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
        commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {"python": platform.python_version(), "numpy": np.__version__, "cpu": cpu, "git_commit": commit}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--features", type=int, default=10_000, help="windows to decode (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs of either (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    json_flag(parser)
    args = parser.parse_args()
    data = synthetic(args.features, args.seed)
    report = {
        "features": args.features,
        "length": LENGTH,
        "batch": BATCH,
        "repeats": args.repeats,
        "seed": args.seed,
        "v1.1": compare(data, False, args.repeats),
        "v2.0": compare(data, True, args.repeats),
        "provenance": provenance(),
    }
    text = json.dumps(report, indent=2)
    if args.output:
        args.output.write_text(text + "\n")
    print(text)
    peers = {
        "`datasets` rows, as its scripts call it": "ratio",
        "plain Python lists": "ratio_to_plain_lists",
    }
    save_rows(
        args.json,
        [
            {"against": peer, "version": version}
            | between("times", report[version][ratio])
            | between("with_texts", report[version][f"{ratio}_with_texts"])
            for peer, ratio in peers.items()
            for version in ("v1.1", "v2.0")
        ],
        data=f"{args.features:,} windows of {LENGTH} tokens, synthetic logits",
        seeds=[args.seed],
    )


if __name__ == "__main__":
    main()
