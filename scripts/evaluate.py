"""Evaluate models on data sets, with the figures, intervals, slices and paired tests that a run has of its test set.

Prints and writes a table of models and data sets, and logs each model's figures to MLflow beside the model. --perturb adds
seeded variants of each data set, and a table of what each model loses on them.
"""

import sys
from pathlib import Path

import _path  # noqa: F401

from common.bounds import number
from common.cli import Parser, guarded, importing
from common.data import perturb
from common.data.columns import parse
from common.data.language import checked
from common.errors import UserError
from common.paths import ROOT

EXAMPLES = """examples:
  python scripts/evaluate.py --model models:/bert-squad-qa@champion --file covid-qa.json --name covid-qa
  python scripts/evaluate.py --model models:/bert-squad-qa/1 models:/bert-squad-qa/2 --file dev.json --perturb typos,case
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    made.add_argument(
        "--model",
        nargs="+",
        default=[],
        metavar="URI",
        help="models:/..., runs:/..., folders, or hub ids",
    )
    made.add_argument(
        "--adapter",
        metavar="DIR",
        help="a folder that PEFT's save_pretrained wrote: --model is its base (default: the one that it names)",
    )
    made.add_argument(
        "--file", required=True, nargs="+", metavar="DATA", help="files with references, each a data set"
    )
    made.add_argument("--name", nargs="+", help="the data sets' names (default: those of the files)")
    made.add_argument(
        "--columns", metavar="FIELD=COLUMN,...", help="columns of tables, as in prepare_data.py"
    )
    made.add_argument(
        "--format", default="auto", help="format of the files (default: found by their content)"
    )
    made.add_argument(
        "--language",
        metavar="CODE",
        help="of the questions, as in score.py (default: what the files say, else SQuAD's rules)",
    )
    made.add_argument(
        "--pairs",
        action="store_true",
        help="classifiers that were not trained here take pairs of texts",
    )
    kinds = "; ".join(f"{name}: {kind.what}" for name, kind in perturb.KINDS.items())
    made.add_argument(
        "--perturb", metavar="KIND,...", default="", help=f"add variants of each data set ({kinds})"
    )
    made.add_argument(
        "--seed", type=number(minimum=0), default=0, help="of the variants (default: %(default)s)"
    )
    made.add_argument("--experiment_name", help="MLflow experiment of models that are not in the store")
    made.add_argument("--no_log", action="store_true", help="log nothing to MLflow")
    made.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        default=ROOT / "results" / "evaluate",
        help="where the files go",
    )
    return made


def main() -> None:
    args = parser().parse_args()
    kinds = list(dict.fromkeys(kind.strip() for kind in args.perturb.split(",") if kind.strip()))
    perturb.check(kinds)
    language = checked(args.language) if args.language else None
    with importing():
        from common.inference import evaluating, evaluation_log, evaluation_report, models
        from common.inference.source import source_of

    names = evaluating.names_of(args.file, args.name, kinds)
    evaluation_report.make_folder(args.output_dir)
    names_of_models = list(dict.fromkeys(args.model)) or [None]
    if args.adapter and len(names_of_models) > 1:
        raise UserError(f"--adapter is put on one --model, its base, not on {len(names_of_models)}.")
    loaded = [models.load(name, pairs=args.pairs, adapter=args.adapter) for name in names_of_models]
    sets = []
    for name, file in zip(names, args.file, strict=True):
        source = source_of(
            [file],
            loaded[0].asked,
            columns=parse(args.columns),
            format=args.format,
            answers_required=True,
            multi_label=loaded[0].task.multi_label,
            language=language,
        )
        sets += evaluating.DataSet(name, list(source.examples())).variants(kinds, args.seed)
    evaluation = evaluating.evaluate(loaded, sets)
    print(evaluation_report.as_text(evaluation))
    runs = {}
    if not args.no_log:
        runs = evaluation_log.log(
            evaluation, {"seed": args.seed, "perturb": args.perturb}, args.experiment_name
        )
    files = evaluation_report.write(evaluation, args.output_dir, runs)
    print(f"\nWritten to {args.output_dir}: {', '.join(files)}")
    for name, run in runs.items():
        print(f"MLflow: {name} in run {run}")


if __name__ == "__main__":
    sys.exit(guarded(main))
