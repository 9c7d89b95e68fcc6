"""Write the tables of figures in README.md and docs/ from the JSON files in docs/results/.

  make tables                        # bring every table up to date
  python docs/tables.py --check      # write nothing; exit code 1 if a table is not up to date

common/reports/result_tables.py describes the files.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.cli import Parser, guarded
from common.paths import ROOT
from common.reports.result_tables import pages, written


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if a table is out of date"
    )
    args = parser.parse_args()
    stale = False
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = written(text)
        if new == text:
            continue
        stale = True
        if args.check:
            print(f"{page.relative_to(ROOT)} differs from docs/results/: run `make tables`.", file=sys.stderr)
        else:
            page.write_text(new, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: written")
    if args.check and stale:
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(guarded(main))
