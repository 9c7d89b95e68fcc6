"""Write docs/quickstart.ipynb from docs/PYTHON.md: its blocks of Python become cells of code, the text between them cells of text.

  make notebook                        # bring the notebook up to date
  python docs/notebook.py --check      # write nothing; exit code 1 if it is not up to date

The notebook holds no outputs: they would change with every machine.
"""

import re
import sys
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.cli import Parser, guarded
from common.paths import ROOT

PAGE, NOTEBOOK = ROOT / "docs" / "PYTHON.md", ROOT / "docs" / "quickstart.ipynb"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
SETUP = """\
import os
import sys
from pathlib import Path

# Jupyter starts in the notebook's folder; the library, data and runs are in the project's.
project = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "common" / "api").is_dir())
os.chdir(project)
sys.path.insert(0, str(project))"""


def notebook(page: str) -> str:
    """A page as a notebook. The first cell of code, which the page does not have, enters the project's folder."""
    # Text and code in turn.
    parts = [part.strip() for part in BLOCK.split(page)]
    cells = [
        (nbformat.v4.new_code_cell if i % 2 else nbformat.v4.new_markdown_cell)(part)
        for i, part in enumerate(parts)
        if part
    ]
    cells.insert(1, nbformat.v4.new_code_cell(SETUP))
    for i, cell in enumerate(cells):
        # nbformat draws ids at random.
        cell["id"] = f"cell-{i}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )
    return nbformat.writes(made) + "\n"


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if it is out of date"
    )
    args = parser.parse_args()
    made = notebook(PAGE.read_text(encoding="utf-8"))
    if NOTEBOOK.is_file() and NOTEBOOK.read_text(encoding="utf-8") == made:
        return
    if args.check:
        print(f"{NOTEBOOK.relative_to(ROOT)} differs from {PAGE.name}: run `make notebook`.", file=sys.stderr)
        sys.exit(1)
    NOTEBOOK.write_text(made, encoding="utf-8")
    print(f"{NOTEBOOK.relative_to(ROOT)}: written")


if __name__ == "__main__":
    sys.exit(guarded(main))
