"""From prepared data to the best of six techniques: a study in an earlier checkout, and here where it stops when it knows.

  python benchmarks/time_to_decision.py --data_dir squad_data --questions 500 --against ../the-suite-before

Each way is one whole `study.py` of studies/bert_six_techniques.yaml on the packaged model, with a new store and a folder of
its own. Times are wall seconds to the report; the best technique is that of the highest mean validation F1.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import pandas as pd
import yaml
from row_overhead import STUDY, study
from table_rows import checkout_flags, write_report

from common.cli import guarded
from common.paths import ROOT

BEFORE = "before, every run"
STOP = {"when": "decided", "smallest_difference": 1.0, "seed_sd": 4.0}
"""Scores of a few hundred questions vary more from seed to seed than the default expects."""
WAYS: dict[str, dict[str, Any]] = {
    BEFORE: {},
    "decided": {"stop": STOP},
    "decided, bf16": {"stop": STOP, "precision": "bf16"},
}
"""Name of a way → what its study has beside the others'."""
SCORE = "best_validation_f1"


def study_of(way: str, args: argparse.Namespace) -> str:
    """The study file of a way."""
    declared = yaml.safe_load((ROOT / STUDY).read_text(encoding="utf-8"))
    del declared["smoke"]
    settings = dict(WAYS[way])
    if "stop" in settings:
        declared["stop"] = settings.pop("stop")
    declared["seeds"] = args.seeds
    declared["base"] |= settings | {
        "data_dir": str(args.data_dir.resolve()),
        "model_checkpoint": "embedded",
        "max_train_samples": args.questions,
        "max_validation_samples": args.tested,
        "max_test_samples": args.tested,
        "max_length": args.max_length,
        "doc_stride": args.max_length // 4,
    }
    return yaml.safe_dump(declared)


def decide(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run the study of a way: its seconds, and what it found."""
    checkout = args.against.resolve() if way == BEFORE else ROOT
    with tempfile.TemporaryDirectory() as own:
        took = study(checkout, study_of(way, args), own)
        # In the study's folder, which has its name. MLflow's artifacts beside it hold another copy.
        (table,) = Path(own).glob("*/study.csv")
        return {"way": way, "seconds": took["seconds"], **found(pd.read_csv(table))}


def found(table: pd.DataFrame) -> dict[str, Any]:
    """What a study's table says: its runs, the seconds of training in them, and the techniques from the best one on."""
    finished = table[table["status"] == "finished"]
    means = finished.groupby("technique")[SCORE].mean().sort_values(ascending=False)
    return {
        "runs": len(finished),
        "planned": len(table),
        "training": float(finished["training_seconds"].sum()),
        "best": means.index[0],
        "scores": {name: round(score, 2) for name, score in means.items()},
        "runs_of": finished["technique"].value_counts().to_dict(),
    }


def rows(measured: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """For --json: a way each, and how many times as fast as the first one it is."""
    for each in measured:
        row = {name: each[name] for name in ("way", "seconds", "runs", "training", "best")}
        if each is not measured[0]:
            row["times"] = measured[0]["seconds"] / each["seconds"]
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="prepared questions")
    parser.add_argument("--questions", type=int, default=500, help="to train on (default: 500)")
    parser.add_argument(
        "--tested", type=int, default=300, help="for validation, and as many for test (default: 300)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--max_length", type=int, default=256, help="tokens of a window (default: 256)")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=WAYS,
        metavar="WAY",
        help=f"of {', '.join(map(repr, WAYS))}; default: all, the first only with --against",
    )
    checkout_flags(parser)
    args = parser.parse_args()
    if not args.data_dir.is_dir():
        # A study would prepare the packaged sample there.
        parser.error(
            f"--data_dir {args.data_dir}: there is no such folder (scripts/prepare_data.py makes one)"
        )
    ways = args.ways or [way for way in WAYS if way != BEFORE or args.against]
    if BEFORE in ways and not args.against:
        parser.error(f"{BEFORE!r} needs --against CHECKOUT")
    measured: list[dict[str, Any]] = []
    for way in ways:
        measured.append(decide(way, args))
        print(json.dumps(measured[-1]), file=sys.stderr, flush=True)
    write_report(
        args,
        list(rows(measured)),
        measured,
        f"{args.data_dir.name}: {args.questions} questions, {args.tested} for validation, {args.tested} for test; seeds {args.seeds}",
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
