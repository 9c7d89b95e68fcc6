"""Tokenization: questions into labelled windows, the suite against the Hugging Face documentation's `datasets.map`.

Both take turns in one process on the same questions with the same fast tokenizer: the suite keeps windows at their own
length, the other pads them to max_length. Counts the windows whose labels are the same. Prints JSON.
"""

import argparse
import json
import sys
from pathlib import Path

import _path  # noqa: F401
import datasets
from decoding import provenance, spread, timed
from peers import training_features
from table_rows import between, json_flag, save_rows

from common.cli import guarded
from common.data import prepared
from common.models import base
from common.tasks.extractive_qa.windows import make_windows


def run(args) -> dict:
    splits, record = prepared.load(args.data_dir)
    questions = splits["train"].select(range(min(args.questions, len(splits["train"])))).to_list()
    _, tokenizer = base.load_base(base.resolve_checkpoint(args.model_checkpoint))
    datasets.disable_progress_bars()
    cut = {"max_length": args.max_length, "doc_stride": args.doc_stride, "segment_ids": True}

    def peer():
        # Made anew each time, so that nothing is found in a cache.
        rows = datasets.Dataset.from_list(questions)
        return rows.map(
            lambda batch: training_features(tokenizer, batch, args.max_length, args.doc_stride),
            batched=True,
            remove_columns=rows.column_names,
            load_from_cache_file=False,
        )

    own, theirs = [], []
    make_windows(tokenizer, questions[:100], **cut)
    for _ in range(args.repeats):
        spent, rows = timed(peer)
        theirs.append(spent)
        spent, windows = timed(lambda: make_windows(tokenizer, questions, **cut))
        own.append(spent)
    same = (windows.start_positions == rows["start_positions"]) & (
        windows.end_positions == rows["end_positions"]
    )
    return {
        "ratio": spread([b / a for a, b in zip(own, theirs, strict=True)]),
        "seconds": {"suite": spread(own), "datasets.map": spread(theirs)},
        "windows": len(windows),
        "same_labels": int(same.sum()),
        "questions": len(questions),
        "data": record.name,
        "max_length": args.max_length,
        "doc_stride": args.doc_stride,
        "provenance": provenance(),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data_dir", default="squad_data")
    p.add_argument("--model_checkpoint", default="embedded", help="whose tokenizer")
    p.add_argument("--questions", type=int, default=5000, help="training questions")
    p.add_argument("--max_length", type=int, default=384)
    p.add_argument("--doc_stride", type=int, default=128)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--output", type=Path, help="also write the JSON here")
    json_flag(p)
    args = p.parse_args()
    result = run(args)
    text = json.dumps(result, indent=2)
    if args.output:
        args.output.write_text(text + "\n")
    print(text)
    seconds = result["seconds"]
    save_rows(
        args.json,
        [
            {"way": "suite", "seconds": seconds["suite"]["median"]} | between("times", result["ratio"]),
            {"way": "datasets.map", "seconds": seconds["datasets.map"]["median"]},
        ],
        data=f"{result['questions']:,} questions of {result['data']}, {args.repeats} rounds",
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
