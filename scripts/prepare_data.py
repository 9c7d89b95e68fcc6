"""Prepare squad_data/: questions for train, validation (articles taken from train) and test (the official dev set);
or imdb_data/: texts with a label for train, validation (taken from train, balanced by label) and test.

The result is a folder that datasets.load_from_disk reads, with a record.json of what was read. An older result is
replaced when the new one is complete; a folder that this script did not write is never changed.
"""

import sys
from pathlib import Path

import _path  # noqa: F401

from common.bounds import SEEDS, number
from common.cli import Parser, guarded
from common.data import sources
from common.data.source_flags import add_source_flags
from common.data.summary import summary

EXAMPLES = """sources:
  sample, sample-texts   questions and reviews written for this project; need no network
  files                  questions: CSV, TSV, JSON lines, JSON, Parquet, Arrow; SQuAD and the shapes of --format
  text                   labelled texts: CSV, TSV, JSON lines, JSON, Parquet, Arrow
  hub                    any data set of the hub that is Parquet, Arrow, CSV or JSON: squad, squad_v2, imdb, OWNER/NAME
  saved                  a folder written by save_to_disk
  aclimdb                the unpacked folder of the original reviews
  mix                    prepared folders as one, with weights

fields of --columns:
  question, context, answer, answer_start, is_impossible, id, title, language; text, text_pair, label

examples:
  python scripts/prepare_data.py --source sample
  python scripts/prepare_data.py --source sample-texts
  python scripts/prepare_data.py --source files --train_file train-v1.1.json --test_file dev-v1.1.json
  python scripts/prepare_data.py --source files --train_file 'parts/*.csv' more.jsonl --columns question=q,context=text,answer=a
  python scripts/prepare_data.py --source files --train_file export.json --format label-studio --on_bad_rows skip
  python scripts/prepare_data.py --source hub --dataset squad_v2
  python scripts/prepare_data.py --source hub --dataset deepset/germanquad --test_split test
  python scripts/prepare_data.py --source hub --dataset imdb
  python scripts/prepare_data.py --source text --train_file train.parquet --test_file test.csv
  python scripts/prepare_data.py --source text --train_file topics.csv --name ag-news
  python scripts/prepare_data.py --source text --train_file tags.jsonl --multi_label --name tags
  python scripts/prepare_data.py --source aclimdb --path aclImdb
  python scripts/prepare_data.py --source mix --mix squad_data=0.3,my_data --output_dir mixed_data
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    made.add_argument(
        "--source", choices=tuple(sources.SOURCES), required=True, help="what to read; see the list below"
    )
    made.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="replaced when the data is complete (default: NAME_data with --name and for OWNER/NAME of the hub; else mixed_data "
        "for mix, multi_label_data for text with --multi_label, imdb_data for other texts, squad_data)",
    )
    made.add_argument(
        "--name",
        default="",
        help="what the data is called: its folder (NAME_data), its MLflow experiment and its registered model (default: those "
        "of the task)",
    )
    add_source_flags(made.add_argument_group("what is read"))
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
    return made


def main() -> None:
    given = vars(parser().parse_args())
    shared = {name: given.pop(name) for name in ("source", "output_dir", "seed", "validation_share", "name")}
    record, folder = sources.prepare(given=given, **shared)
    shown = summary(record, folder)
    print("\n".join(shown.lines))
    if shown.warnings:
        print("\n".join(shown.warnings), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(guarded(main))
