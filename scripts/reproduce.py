"""Train a run again from its logged settings, and say whether the same comes out.

Compared are the sha256 of the weights, every prediction of the test, and the figures of validation and test; and what decides
them: settings, data, the base's weights, the teacher, the technique, the code of each package, libraries, processor, device;
the number of threads is set to the run's. The second training lies in a temporary folder (TMPDIR) and leaves no run and no model.

Exit status: 0 where all is bit-equal, or each score of the test lies in its logged 95% interval; 1 where one does not, or moved
and has no interval; 2 where the run cannot be trained again. With --exact only bit-equal results give 0.
"""

import _path  # noqa: F401  # isort: skip
import sys

from common.cli import Parser, guarded

EXAMPLES = """examples:
  python scripts/reproduce.py RUN_ID
  python scripts/reproduce.py RUN_ID --data_dir copy_of_the_data --exact
"""


def parser() -> Parser:
    made = Parser(description=__doc__, epilog=EXAMPLES)
    made.add_argument("run", metavar="RUN_ID", help="id of a finished training")
    made.add_argument(
        "--data_dir", metavar="DIR", help="prepared data (default: the folder that the run was trained from)"
    )
    made.add_argument("--exact", action="store_true", help="exit status 1 for anything but bit-equal results")
    return made


def main() -> None:
    args = parser().parse_args()
    from common.api.reproducing import report, reproduce

    found = reproduce(args.run, args.data_dir)
    print(report(found))
    if not (found.equal if args.exact else found.holds):
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(guarded(main))
