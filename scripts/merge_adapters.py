"""Merge what finished runs trained into one model, test it, and log it as a run beside them.

The runs have the same technique, task, labels and base; seeds, data and hyper-parameters of the training may differ. The
threshold of "no answer" and the calibration are found on validation again, and the test set is scored once.

LoRA adds an update B A to the weights W. The mean of the updates is not the product of the mean of B and the mean of A,
so there are several methods:

  cat               the exact mean of the updates; its rank is the sum of all ranks (the default)
  linear            the mean of A and the mean of B, for runs that started from the same values: with different seeds it
                    loses what they have learnt
  svd               the mean of the updates, cut to the rank of one run or to --rank
  ties              drops the smallest values, and those whose sign differs from the majority's (Yadav et al., 2023)
  dare_linear       drops random values and scales up the others (Yu et al., 2023)
  dare_ties         drops random values, and those whose sign differs from the majority's
  magnitude_prune   drops the smallest values

The last four work on A and B; with _svd at the end of the name (ties_svd, ...) on the updates, cut to a rank as by svd.
All other techniques have only `linear`, the mean of all trained tensors. Heads are always averaged.
"""

import _path  # noqa: F401  # isort: skip
import sys
from pathlib import Path

from common.bounds import SEEDS, number
from common.cli import Parser, guarded

EXAMPLES = """examples:
  python scripts/merge_adapters.py RUN_ID RUN_ID RUN_ID
  python scripts/merge_adapters.py RUN_ID RUN_ID --weights 0.7 0.3
  python scripts/merge_adapters.py RUN_ID RUN_ID RUN_ID --method ties_svd --density 0.3 --rank 32
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    made.add_argument(
        "runs",
        nargs="+",
        metavar="RUN_ID",
        help="ids of finished runs; the first one's data settings are used",
    )
    how = made.add_argument_group("how they become one")
    how.add_argument(
        "--method",
        metavar="NAME",
        help="one of those above (default: cat for LoRA, else linear)",
    )
    how.add_argument(
        "--weights",
        nargs="+",
        type=number(float),
        metavar="X",
        help="one number for each run (default: the same for all)",
    )
    how.add_argument(
        "--density",
        type=number(float, above=0, maximum=1),
        metavar="X",
        help="share of the values that ties, dare and magnitude_prune methods keep (default: 0.5)",
    )
    how.add_argument(
        "--rank",
        type=number(minimum=1),
        metavar="N",
        help="rank of the merged update, for methods that end in svd (default: that of the runs)",
    )
    how.add_argument(
        "--seed",
        type=number(minimum=0, maximum=SEEDS),
        default=0,
        metavar="N",
        help="decides what dare drops (default: %(default)s)",
    )
    made.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="prepared data to test with (default: what the first run was trained from)",
    )
    made.add_argument(
        "--experiment_name", metavar="NAME", help="MLflow experiment (default: the first run's)"
    )
    made.add_argument("--run_name", metavar="NAME", help="name of the MLflow run (default: what was merged)")
    made.add_argument(
        "--output_dir",
        metavar="DIR",
        help="folder for files until the run has finished (default: below mlruns/)",
    )
    made.add_argument(
        "--skip_finished",
        action="store_true",
        help="do nothing if MLflow already holds a finished run of the same content",
    )
    return made


def main() -> None:
    args = parser().parse_args()
    # Its libraries take seconds to import.
    from common.models.merging import recipe
    from common.training.merging import merge

    merge(
        args.runs,
        recipe(args.method, args.weights, args.density, args.rank, args.seed),
        data_dir=args.data_dir and str(args.data_dir),
        experiment_name=args.experiment_name,
        run_name=args.run_name,
        output_dir=args.output_dir,
        skip_finished=args.skip_finished,
    )


if __name__ == "__main__":
    sys.exit(guarded(main))
