"""Prepare squad_data/: questions for train, validation (carved from train by article) and test (the official dev set);
or imdb_data/: texts with a label for train, validation (carved from train by label) and test.

Whatever the source, the result is a folder that datasets.load_from_disk reads, with a record.json of what was read.
An older result is replaced when the new one is complete; a folder that this script did not write is left alone.

  python scripts/prepare_data.py --source sample
  python scripts/prepare_data.py --source sample-texts
  python scripts/prepare_data.py --source files --train_file train-v1.1.json --test_file dev-v1.1.json
  python scripts/prepare_data.py --source hub --dataset squad_v2
  python scripts/prepare_data.py --source hub --dataset imdb
  python scripts/prepare_data.py --source text --train_file train.parquet --test_file test.csv
  python scripts/prepare_data.py --source aclimdb --path aclImdb
"""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401

from common.bounds import SEEDS, number
from common.cli import Parser, guarded
from common.data.record import DataRecord
from common.errors import UserError
from common.paths import ROOT

BELONGS = {
    "files": ("train_file", "test_file", "on_bad_rows"),
    "text": ("train_file", "test_file", "on_bad_rows"),
    "hub": ("dataset",),
    "saved": ("path", "on_bad_rows"),
    "aclimdb": ("path",),
    "sample": (),
    "sample-texts": (),
}


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def parser() -> Parser:
    p = Parser(description=__doc__, formatter_class=Formatter, allow_abbrev=False)
    p.add_argument(
        "--source",
        choices=("sample", "sample-texts", "files", "hub", "saved", "text", "aclimdb"),
        required=True,
        default=argparse.SUPPRESS,
        help="sample, sample-texts: questions and reviews written for this project, need no network; files: SQuAD JSON, v1.1 or v2.0, also flat rows and gzip; "
        "hub: squad, squad_v2 or imdb; saved: a folder written by save_to_disk; text: parquet, JSON lines or CSV with the columns "
        "text and label (0 or 1, or neg or pos); aclimdb: the unpacked folder of the original reviews",
    )
    # Suppressed, so that a flag of another source can be told from a default.
    quiet = dict(default=argparse.SUPPRESS)
    p.add_argument(
        "--train_file", type=Path, metavar="FILE", help="for train and validation (files, text)", **quiet
    )
    p.add_argument(
        "--test_file", type=Path, metavar="FILE", help="for test, the dev set (files, text)", **quiet
    )
    p.add_argument(
        "--dataset", choices=("squad", "squad_v2", "imdb"), help="which one (hub; default: squad)", **quiet
    )
    p.add_argument(
        "--path",
        type=Path,
        metavar="DIR",
        help="the saved DatasetDict (saved), or aclImdb (aclimdb)",
        **quiet,
    )
    p.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="replaced when complete (default: imdb_data for texts, else squad_data)",
        **quiet,
    )
    p.add_argument(
        "--on_bad_rows",
        choices=("error", "skip"),
        help="error: every fault is listed and nothing is written; skip: faulty questions or texts are left out and listed with their "
        "reasons in skipped.json beside the data (files, text, saved; default: error)",
        **quiet,
    )
    p.add_argument(
        "--seed",
        type=number(minimum=0, maximum=SEEDS),
        default=42,
        help="decides which articles or texts become validation",
    )
    p.add_argument(
        "--validation_share",
        type=number(float, above=0, below=1),
        metavar="SHARE",
        default=0.1,
        help="share of the training questions or texts that become validation, between 0 and 1",
    )
    return p


def main() -> None:
    args = parser().parse_args()
    for name in dict.fromkeys(name for names in BELONGS.values() for name in names):
        sources = [source for source, names in BELONGS.items() if name in names]
        if hasattr(args, name) and args.source not in sources:
            raise UserError(
                f"--{name} belongs to --source {' or '.join(sources)}, not to --source {args.source}."
            )
        needed = args.source in sources and name not in ("dataset", "on_bad_rows")
        if not hasattr(args, name) and needed:
            raise UserError(f"--source {args.source} needs --{name}.")
    from common.data import labelled_texts, questions

    dataset = getattr(args, "dataset", "squad")
    texts = (
        args.source in ("sample-texts", "text", "aclimdb")
        or args.source == "hub"
        and dataset in labelled_texts.HUB
    )
    output_dir = getattr(args, "output_dir", ROOT / ("imdb_data" if texts else "squad_data"))
    common = dict(seed=args.seed, validation_share=args.validation_share)
    if hasattr(args, "on_bad_rows"):
        common["on_bad_rows"] = args.on_bad_rows
    if args.source in ("sample", "sample-texts"):
        record = (labelled_texts if texts else questions).prepare_sample(output_dir, **common)
    elif args.source in ("files", "text"):
        prepare = labelled_texts.prepare_files if texts else questions.prepare_files
        record = prepare(args.train_file, args.test_file, output_dir, **common)
    elif args.source == "hub":
        record = (labelled_texts if texts else questions).prepare_hub(dataset, output_dir, **common)
    elif args.source == "saved":
        record = questions.prepare_saved(args.path, output_dir, **common)
    else:
        record = labelled_texts.prepare_aclimdb(args.path, output_dir, **common)
    if texts:
        _report_texts(record, output_dir)
    else:
        _report_questions(record, output_dir)


def _report_texts(record: DataRecord, output_dir: Path) -> None:
    print(f"{output_dir}: {record.name}, fingerprint {record.fingerprint[:12]}")
    for split, c in record.counts.items():
        labels = ", ".join(f"{c[name]} {name}" for name in record.labels)
        print(f"  {split:10} {c['texts']:6} texts ({labels}), {c['different']} of them different")
    if record.skipped:
        print(f"  {record.skipped} texts were left out because of a fault: skipped.json lists them")
    if record.test_texts_also_in_train:
        print(
            f"  warning: {record.test_texts_also_in_train} test texts are in train or validation too",
            file=sys.stderr,
        )


def _report_questions(record: DataRecord, output_dir: Path) -> None:
    print(f"{output_dir}: {record.name}, SQuAD {record.version}, fingerprint {record.fingerprint[:12]}")
    for split, c in record.counts.items():
        print(
            f"  {split:10} {c['questions']:6} questions ({c['answerable']} answerable) on {c['paragraphs']} paragraphs "
            f"of {c['titles']} articles"
        )
    repairs = {
        "repaired": "answers had a wrong answer_start, or differed in case or white space, and were found in their paragraph",
        "empty_answers": "answers without text were left out of training",
        "made_ids": "questions had no id and were given one",
        "renamed_ids": "questions of train have the id of another question in test or validation and were given one of their own",
        "made_titles": "articles had no title and were given one",
        "skipped": "questions were left out because of a fault: skipped.json lists them",
    }
    for name, what in repairs.items():
        if getattr(record, name):
            print(f"  {getattr(record, name)} {what}")
    for note in (record.notes or ())[:10]:
        print(f"  not trained on: {note}", file=sys.stderr)
    if (record.dropped or 0) > 10:
        print(f"  ... {record.dropped} answers are not trained on in all", file=sys.stderr)
    if record.validation_by == "paragraph":
        print(
            "  note: validation was carved by paragraph, for the training questions are all of one article "
            "(or of articles that share paragraphs)",
            file=sys.stderr,
        )
    for split in ("validation", "test"):
        shared = getattr(record, f"{split}_paragraphs_also_in_train")
        if shared:
            print(f"  warning: {shared} {split} paragraphs are in train too", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(guarded(main))
