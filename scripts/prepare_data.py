"""Prepare squad_data/: questions for train, validation (articles taken from train) and test (the official dev set);
or imdb_data/: texts with a label for train, validation (taken from train, balanced by label) and test.

The result is a folder that datasets.load_from_disk reads, with a record.json of what was read. An older result is
replaced when the new one is complete; a folder that this script did not write is never changed.
"""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401

from common.bounds import SEEDS, number
from common.cli import Parser, guarded
from common.data import sources
from common.data.summary import summary

EXAMPLES = """sources:
  sample, sample-texts   questions and reviews written for this project; need no network
  files                  SQuAD JSON, v1.1 or v2.0, also flat rows and gzip
  hub                    squad, squad_v2 or imdb
  saved                  a folder written by save_to_disk
  text                   parquet, JSON lines or CSV with the columns text and label (0 or 1, or neg or pos)
  aclimdb                the unpacked folder of the original reviews

examples:
  python scripts/prepare_data.py --source sample
  python scripts/prepare_data.py --source sample-texts
  python scripts/prepare_data.py --source files --train_file train-v1.1.json --test_file dev-v1.1.json
  python scripts/prepare_data.py --source hub --dataset squad_v2
  python scripts/prepare_data.py --source hub --dataset imdb
  python scripts/prepare_data.py --source text --train_file train.parquet --test_file test.csv
  python scripts/prepare_data.py --source aclimdb --path aclImdb
"""


def parser() -> Parser:
    made = Parser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--source", choices=tuple(sources.SOURCES), required=True, help="what to read; see the list below"
    )
    made.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="replaced when the data is complete (default: imdb_data for texts, else squad_data)",
    )
    read = made.add_argument_group("what is read")
    # Suppressed, so that a flag of another source can be distinguished from a default.
    quiet = argparse.SUPPRESS
    read.add_argument(
        "--train_file",
        type=Path,
        metavar="FILE",
        default=quiet,
        help="file for train and validation (files, text)",
    )
    read.add_argument(
        "--test_file",
        type=Path,
        metavar="FILE",
        default=quiet,
        help="file for test, such as the dev set (files, text)",
    )
    read.add_argument(
        "--dataset",
        choices=sources.DATASETS,
        default=quiet,
        help=f"the data set of the hub (hub; default: {sources.DATASETS[0]})",
    )
    read.add_argument(
        "--path",
        type=Path,
        metavar="DIR",
        default=quiet,
        help="the saved DatasetDict (saved), or aclImdb (aclimdb)",
    )
    read.add_argument(
        "--on_bad_rows",
        choices=("error", "skip"),
        default=quiet,
        help="error: every fault is listed and nothing is written; skip: faulty questions or texts are left out and listed with "
        "their reasons in skipped.json beside the data (files, text, saved; default: error)",
    )
    _add_carving(made)
    return made


def _add_carving(made: Parser) -> None:
    carved = made.add_argument_group("what becomes validation")
    carved.add_argument(
        "--seed",
        type=number(minimum=0, maximum=SEEDS),
        default=42,
        help="decides which articles or texts become validation (default: %(default)s)",
    )
    carved.add_argument(
        "--validation_share",
        type=number(float, above=0, below=1),
        metavar="SHARE",
        default=0.1,
        help="share of the training questions or texts that become validation, between 0 and 1 (default: %(default)s)",
    )


def main() -> None:
    given = vars(parser().parse_args())
    shared = {name: given.pop(name) for name in ("source", "output_dir", "seed", "validation_share")}
    record, folder = sources.prepare(given=given, **shared)
    shown = summary(record, folder)
    print("\n".join(shown.lines))
    if shown.warnings:
        print("\n".join(shown.warnings), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(guarded(main))
