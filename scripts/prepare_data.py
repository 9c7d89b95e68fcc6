"""Prepare squad_data/: questions for train, validation (carved from train by article) and test (the official dev set)."""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401

from common.cli import guarded
from common.errors import UserError
from common.paths import ROOT


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument(
        "--source",
        choices=("sample", "files", "hub", "saved"),
        required=True,
        help="sample: written for this project, needs no network; files: official SQuAD JSON, v1.1 or v2.0; "
        "hub: squad or squad_v2; saved: a folder written by save_to_disk",
    )
    p.add_argument(
        "--train_file", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="with --source files"
    )
    p.add_argument(
        "--test_file", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="with --source files"
    )
    p.add_argument("--dataset", choices=("squad", "squad_v2"), default="squad", help="with --source hub")
    p.add_argument("--path", type=Path, metavar="DIR", default=argparse.SUPPRESS, help="with --source saved")
    p.add_argument(
        "--output_dir", type=Path, metavar="DIR", default=ROOT / "squad_data", help="replaced when complete"
    )
    p.add_argument("--seed", type=int, default=42, help="decides which articles become validation")
    p.add_argument(
        "--validation_share",
        type=float,
        default=0.1,
        help="share of the training questions that become validation",
    )
    return p


def main() -> None:
    args = parser().parse_args()
    needed = {"files": ("train_file", "test_file"), "saved": ("path",)}.get(args.source, ())
    for name in needed:
        if not hasattr(args, name):
            raise UserError(f"--source {args.source} needs --{name}.")
    from common import data

    common = dict(seed=args.seed, validation_share=args.validation_share)
    if args.source == "sample":
        record = data.prepare_sample(args.output_dir, **common)
    elif args.source == "files":
        record = data.prepare_files(args.train_file, args.test_file, args.output_dir, **common)
    elif args.source == "hub":
        record = data.prepare_hub(args.dataset, args.output_dir, **common)
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
    if record["test_paragraphs_also_in_train"]:
        print(
            f"  warning: {record['test_paragraphs_also_in_train']} test paragraphs stand in train too",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(guarded(main))
