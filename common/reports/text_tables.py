"""Tables of texts, for a terminal and in Markdown: the first column to the left, the others to the right."""

import pandas as pd
from tabulate import tabulate


def to_text(table: pd.DataFrame) -> str:
    """Aligned columns below their names, two spaces apart. Wide characters count as two if wcwidth is installed."""
    # The names are a row, because tabulate would make a header's column two characters wider than it needs.
    return tabulate([list(table.columns), *_rows(table)], tablefmt="plain", **_layout(table))


def to_markdown(table: pd.DataFrame, numbers: bool = True) -> str:
    """A pipe table with a line break at its end; pipes in cells are escaped. numbers: set all columns but the first to the right."""
    header, *rows = [
        [" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (table.columns, *_rows(table))
    ]
    return tabulate(rows, header, tablefmt="pipe", **_layout(table, numbers)) + "\n"


def _rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(table.itertuples(index=False, name=None))


def _layout(table: pd.DataFrame, numbers: bool = True) -> dict:
    # Numbers are formatted already: "0.10" stays "0.10".
    others = ["right" if numbers else "left"] * (table.shape[1] - 1)
    return {"disable_numparse": True, "colalign": ["left", *others]}
