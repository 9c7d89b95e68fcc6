"""Compare the finished runs of an experiment: a table, and a figure of F1 (or accuracy) against trainable parameters.

Only runs for the same task, on the same data and the same test questions (or texts) are compared. The defaults are
the task and the data of the newest run, and the latest run of each technique and checkpoint. Writes comparison.csv,
comparison.md and f1_against_parameters.png (or accuracy_against_parameters.png).
"""

import sys
from pathlib import Path

import _path  # noqa: F401

from common.cli import Parser, guarded, importing
from common.errors import UserError
from common.paths import ROOT
from common.tasks.table import TASKS

EXAMPLES = """examples:
  python scripts/compare.py
  python scripts/compare.py --task classification --all_runs --output_dir results/reviews
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    which = made.add_argument_group("which runs")
    which.add_argument(
        "--experiment_name",
        metavar="NAME",
        help="MLflow experiment (default: MLFLOW_EXPERIMENT_NAME, else squad-qa, or the task's)",
    )
    which.add_argument(
        "--task", choices=tuple(TASKS), help="compare the runs for this task (default: the newest run's)"
    )
    which.add_argument(
        "--data_fingerprint",
        metavar="SHA256",
        help="compare the runs on this data; the first characters suffice (default: the newest run's data)",
    )
    which.add_argument(
        "--all_runs",
        action="store_true",
        help="compare every run, not only the latest of each technique and checkpoint",
    )
    made.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="folder for the files (default: results/compare in the project)",
    )
    made.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write the rows of a table of the documentation, such as docs/results/demo.json; then `make tables`",
    )
    return made


def main() -> None:
    args = parser().parse_args()
    # Its libraries take seconds to import.
    with importing():
        from common.tracking.compared import compare_experiment

    compared = compare_experiment(args.experiment_name, args.task, args.data_fingerprint, args.all_runs)
    print(compared.as_text())
    if args.json:
        compared.write_rows(args.json)
    output_dir = args.output_dir or ROOT / "results" / "compare"
    try:
        files = compared.write(output_dir)
    except OSError as error:
        reason = f"--output_dir {output_dir}: {error.strerror}: {error.filename}."
        if args.output_dir:
            raise UserError(reason) from None
        # The table is printed already; in a project that is not writable there are no files.
        print(f"\nNo files are written: {reason} Choose a folder that can be written.", file=sys.stderr)
        return
    print(f"\nWritten to {output_dir}: {', '.join(files)}")


if __name__ == "__main__":
    sys.exit(guarded(main))
