"""The tables of figures in README.md and docs/: each is made of a JSON file in docs/results/, so no figure is typed.

A page holds a table between `<!-- table: NAME -->` and `<!-- end -->`, where NAME is the name of the file; `NAME VIEW` is
another choice of columns for the same rows. `<!-- figures: NAME -->` says that the sentences of the page use figures of a
file without a table. A file holds

- `provenance`: how the figures came about: `command`, and what is known of data, seeds, machine, versions, commit and date;
- `rows`: an object for each row, field → figure (a number, a list such as value, low and high, or a text);
- `columns`: title, align ("left" or "right") and format of each column. A format is a format string over a row's fields, or
  several, of which the first one is used that the row has all fields for; without one the cell is empty. `{x!t}` writes
  seconds as minutes and seconds, `{x!e}` a number such as 1e-3;
- `views`, optional: name → further lists of columns;
- `sentences`, optional: what a sentence says → its figures, where the rows do not hold them.
"""

import json
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..durations import clock
from ..errors import UserError
from ..paths import ROOT

RESULTS = ROOT / "docs" / "results"
TABLE = re.compile(
    r"(?P<begin><!-- table: (?P<name>[\w-]+)(?: (?P<view>[\w-]+))? -->\n)(?:(?!<!-- table:).)*?(?P<end><!-- end -->)",
    re.S,
)
BEGUN = re.compile(r"<!-- table: [\w -]+-->\n")
FIGURES = re.compile(r"<!-- figures: (?P<name>[\w-]+) -->")

Row = Mapping[str, Any]
Columns = Sequence[Mapping[str, Any]]


class _Cells(string.Formatter):
    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion == "t":
            return clock(value)
        if conversion == "e":
            digits, _, exponent = f"{value:e}".partition("e")
            return f"{float(digits):g}e{int(exponent)}"
        return super().convert_field(value, conversion)


def fields(form: str) -> set[str]:
    """The fields of a row that a format string uses."""
    named = (name for _, name, _, _ in string.Formatter().parse(form) if name)
    return {re.split(r"[.\[]", name)[0] for name in named}


def cell(row: Row, formats: str | Sequence[str]) -> str:
    """A row's cell by the first format that it has the fields for; "" without one."""
    for form in [formats] if isinstance(formats, str) else formats:
        if fields(form) <= row.keys():
            return _Cells().vformat(form, (), row)
    return ""


def markdown(result: Mapping[str, Any], view: str | None = None) -> str:
    """A result's table, or that of one of its views; UserError if there is no such view."""
    columns = result["columns"] if view is None else result.get("views", {}).get(view)
    if columns is None:
        raise UserError(
            f"there is no view {view!r}, only {', '.join(result.get('views', {})) or 'the table'}."
        )
    return pipe_table(result["rows"], columns)


def pipe_table(rows: Sequence[Row], columns: Columns) -> str:
    """Rows as a Markdown table that ends with a line break."""
    lines = [
        [column["title"] for column in columns],
        ["---:" if column["align"] == "right" else "---" for column in columns],
        *([cell(row, column["format"]) for column in columns] for row in rows),
    ]
    # An empty cell is one space wide.
    return "".join("|" + "".join(f" {text} |" if text else " |" for text in line) + "\n" for line in lines)


def read(file: Path) -> dict[str, Any]:
    """A result's file; UserError if there is none, if a part or its command is missing, or if a column fits no row."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} does not exist: no table is named {file.stem!r}.") from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}.") from None
    if lacking := [part for part in ("provenance", "rows", "columns") if part not in found]:
        raise UserError(f"{file} has no {lacking[0]!r}.")
    if not found["provenance"].get("command"):
        raise UserError(f"{file}: its provenance names no command that gives the figures.")
    _check(file, found)
    return found


def _check(file: Path, result: Mapping[str, Any]) -> None:
    for columns in (result["columns"], *result.get("views", {}).values()):
        for column in columns:
            if not any(cell(row, column["format"]) for row in result["rows"]):
                raise UserError(f"{file}: no row has the fields of the column {column['title']!r}.")


def save(file: Path, rows: Sequence[Row], provenance: Mapping[str, Any]) -> None:
    """Write rows and their provenance to a result's file. Columns, views and sentences of a file that exists stay; a new
    one gets a column for each field. UserError if a column of the file fits no row."""
    result: dict[str, Any] = {"provenance": provenance, "rows": [_known(row) for row in rows]}
    if file.is_file():
        result |= {key: part for key, part in read(file).items() if key not in result}
    else:
        names = list(dict.fromkeys(name for row in result["rows"] for name in row))
        result["columns"] = [{"title": name, "align": "left", "format": f"{{{name}}}"} for name in names]
    _check(file, result)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(as_json(result), encoding="utf-8")


def _known(row: Row) -> dict[str, Any]:
    """A row without the fields that have no value (None, NaN)."""
    return {name: value for name, value in row.items() if value is not None and value == value}


def as_json(result: Mapping[str, Any]) -> str:
    """A result with one row or column a line, so that a difference between two versions shows the rows that changed."""
    return "{\n" + ",\n".join(f' "{key}": {_part(part)}' for key, part in result.items()) + "\n}\n"


def _part(part: Any) -> str:
    if isinstance(part, Mapping):
        lines = [f"{json.dumps(key, ensure_ascii=False)}: {_line(value)}" for key, value in part.items()]
        return "{\n  " + ",\n  ".join(lines) + "\n }"
    return "[\n  " + ",\n  ".join(map(_line, part)) + "\n ]"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def pages() -> list[Path]:
    """The pages that hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def written(text: str, results: Path = RESULTS) -> str:
    """A page's text with each of its tables as the files hold it; UserError if a table has no end."""
    if open_ := BEGUN.search(TABLE.sub("", text)):
        raise UserError(
            f"{open_[0].strip()} has no `<!-- end -->` before the next table: write it below the table."
        )

    def table(found: re.Match[str]) -> str:
        return (
            found["begin"] + markdown(read(results / f"{found['name']}.json"), found["view"]) + found["end"]
        )

    return TABLE.sub(table, text)
