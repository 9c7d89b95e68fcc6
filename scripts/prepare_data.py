"""Prepare squad_data/: questions for train, validation (carved from train by article) and test (the official dev set).

Whatever the source, the result is a folder that datasets.load_from_disk reads, with a record.json of what was read.
An older result is replaced when the new one is complete; a folder that this script did not write is left alone.

  python scripts/prepare_data.py --source sample
  python scripts/prepare_data.py --source files --train_file train-v1.1.json --test_file dev-v1.1.json
  python scripts/prepare_data.py --source hub --dataset squad_v2
"""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401

from common.cli import guarded
from common.errors import UserError
from common.paths import ROOT

BELONGS = {"files": ("train_file", "test_file"), "hub": ("dataset",), "saved": ("path",), "sample": ()}


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=Formatter, allow_abbrev=False)
    p.add_argument(
        "--source",
        choices=("sample", "files", "hub", "saved"),
        required=True,
        default=argparse.SUPPRESS,
        help="sample: written for this project, needs no network; files: official SQuAD JSON, v1.1 or v2.0; "
        "hub: squad or squad_v2; saved: a folder written by save_to_disk",
    )
    # Suppressed, so that a flag of another source can be told from a default.
    quiet = dict(default=argparse.SUPPRESS)
    p.add_argument(
        "--train_file", type=Path, metavar="FILE", help="questions for train and validation (files)", **quiet
    )
    p.add_argument(
        "--test_file", type=Path, metavar="FILE", help="questions for test, the dev set (files)", **quiet
    )
    p.add_argument(
        "--dataset", choices=("squad", "squad_v2"), help="which one (hub; default: squad)", **quiet
    )
    p.add_argument("--path", type=Path, metavar="DIR", help="the saved DatasetDict (saved)", **quiet)
    p.add_argument(
        "--output_dir", type=Path, metavar="DIR", default=ROOT / "squad_data", help="replaced when complete"
    )
    p.add_argument("--seed", type=int, default=42, help="decides which articles become validation")
    p.add_argument(
        "--validation_share",
        type=float,
        metavar="SHARE",
        default=0.1,
        help="share of the training questions that become validation, between 0 and 1",
    )
    return p


def main() -> None:
    args = parser().parse_args()
    for source, names in BELONGS.items():
        for name in names:
            if hasattr(args, name) and source != args.source:
                raise UserError(f"--{name} belongs to --source {source}, not to --source {args.source}.")
            if not hasattr(args, name) and source == args.source != "hub":
                raise UserError(f"--source {source} needs --{name}.")
    from common import data

    common = dict(seed=args.seed, validation_share=args.validation_share)
    if args.source == "sample":
        record = data.prepare_sample(args.output_dir, **common)
    elif args.source == "files":
        record = data.prepare_files(args.train_file, args.test_file, args.output_dir, **common)
    elif args.source == "hub":
        record = data.prepare_hub(getattr(args, "dataset", "squad"), args.output_dir, **common)
    else:
        record = data.prepare_saved(args.path, args.output_dir, **common)
    _tell(record, args.output_dir)


def _tell(record: dict, output_dir: Path) -> None:
    print(
        f"{output_dir}: {record['name']}, SQuAD {record['version']}, fingerprint {record['fingerprint'][:12]}"
    )
    for split, c in record["counts"].items():
        print(
            f"  {split:10} {c['questions']:6} questions ({c['answerable']} answerable) on {c['paragraphs']} paragraphs "
            f"of {c['titles']} articles"
        )
    if record["repaired"]:
        print(
            f"  {record['repaired']} answers had a wrong answer_start and were found elsewhere in their paragraph"
        )
    for note in record["notes"][:10]:
        print(f"  left out: {note}", file=sys.stderr)
    if record["dropped"] > 10:
        print(f"  ... {record['dropped']} answers left out in all", file=sys.stderr)
    if record["validation_by"] == "paragraph":
        print(
            "  note: validation was carved by paragraph, for the training questions are all of one article "
            "(or of articles that share paragraphs)",
            file=sys.stderr,
        )
    for split in ("validation", "test"):
        shared = record[f"{split}_paragraphs_also_in_train"]
        if shared:
            print(f"  warning: {shared} {split} paragraphs stand in train too", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(guarded(main))
