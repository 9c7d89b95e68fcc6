"""Print which technique works with which model family for which task, and why other combinations are refused; then which
methods of PEFT work by file, and which technique leaves this project in which format.

docs/MODELS.md and docs/EXPORT.md hold these tables; --write updates them.
"""

import re
import sys

import _path  # noqa: F401

from common.api.technique_scripts import technique_scripts
from common.cli import Parser, guarded
from common.paths import ROOT


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="write the tables into docs/MODELS.md and docs/EXPORT.md"
    )
    args = parser.parse_args()

    from common.api.exporting import formats_markdown
    from common.export import formats
    from common.tasks.support_matrix import BEGIN, END, PEFT_BEGIN, PEFT_END, markdown, peft_markdown

    table = markdown({key: kind.name for key, (kind, _) in technique_scripts().items()})
    if not args.write:
        print(table, end=f"\n{peft_markdown()}\n{formats_markdown()}")
        return
    for page, begin, end, content in (
        ("MODELS.md", BEGIN, END, table),
        ("MODELS.md", PEFT_BEGIN, PEFT_END, peft_markdown()),
        ("EXPORT.md", formats.BEGIN, formats.END, formats_markdown()),
    ):
        file = ROOT / "docs" / page
        between = re.compile(f"(?<={re.escape(begin)}\n).*?(?={re.escape(end)})", re.DOTALL)
        text = between.sub(content.replace("\\", r"\\"), file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(guarded(main))
