"""Print which technique works with which model family for which task, and why other combinations are refused.

docs/MODELS.md holds this table; --write updates it.
"""

import argparse
import re
import sys

import _path  # noqa: F401

from common.api.technique_scripts import technique_scripts
from common.cli import Parser, guarded
from common.paths import ROOT


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into docs/MODELS.md")
    args = parser.parse_args()

    from common.tasks.support_matrix import BEGIN, END, markdown

    table = markdown({key: kind.name for key, (kind, _) in technique_scripts().items()})
    if not args.write:
        print(table, end="")
        return
    file = ROOT / "docs" / "MODELS.md"
    between = re.compile(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.DOTALL)
    file.write_text(between.sub(lambda _: table, file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(guarded(main))
