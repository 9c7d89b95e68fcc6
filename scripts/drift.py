"""Compare what a model is asked with what it was trained and tested on: lengths, scripts, classes or "no answer", and confidence.

FOLDER is what servers wrote that were started with SERVING_OBSERVATIONS=FOLDER (docs/OPERATIONS.md). It holds no texts. Each
measure gets a distance with bounds and a test; those that drift are named, and an HTML page shows all of them.

Exit status: 0, or with --fail_on_drift 1 where a measure drifts; 2 where there is nothing to compare.
"""

import _path  # noqa: F401  # isort: skip
import sys
from argparse import ArgumentTypeError
from datetime import date
from pathlib import Path

from common.bounds import number
from common.cli import Parser, guarded
from common.paths import ROOT

EXAMPLES = """examples:
  python scripts/drift.py observations --model models:/bert-squad-qa@champion
  python scripts/drift.py observations --model models:/bert-squad-qa/3 --since 2026-11-01 --fail_on_drift
"""


def day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no date: write it as 2026-11-01") from None


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    made.add_argument("folder", metavar="FOLDER", type=Path, help="folder of observations")
    made.add_argument(
        "--model", metavar="URI", required=True, help="models:/NAME@ALIAS or models:/NAME/VERSION"
    )
    made.add_argument("--since", metavar="DATE", type=day, help="the first day, in UTC (default: all)")
    made.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="prepared data (default: the folder that the run was trained from)",
    )
    made.add_argument(
        "--against",
        choices=("test", "train"),
        default="test",
        help="the split whose texts served ones are compared with; answers are always compared with those to the test data "
        "(default: %(default)s)",
    )
    made.add_argument(
        "--least",
        type=number(float, minimum=0, maximum=1),
        default=0.1,
        metavar="DISTANCE",
        help="smaller distances, from 0 to 1, are no drift (default: %(default)s)",
    )
    made.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the page (default: results/drift.html in the project)",
    )
    made.add_argument("--fail_on_drift", action="store_true", help="exit status 1 where a measure drifts")
    return made


def main() -> None:
    args = parser().parse_args()
    # Its libraries take seconds to import.
    from common.registry.drift import compare
    from common.registry.drift_report import as_text, write_page

    found = compare(args.folder, args.model, args.since, args.data_dir, args.least, args.against)
    output = args.output or ROOT / "results" / "drift.html"
    write_page(found, output)
    print(as_text(found))
    print(f"Written: {output}")
    if args.fail_on_drift and found.drifting:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(guarded(main))
