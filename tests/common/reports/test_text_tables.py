"""Tables for a terminal and in Markdown."""

import pandas as pd

from common.reports.text_tables import to_markdown, to_text

TABLE = pd.DataFrame(
    {
        "technique": ["LoRA", "IA3"],
        "EM [95%]": ["50.0 [40.0, 60.0]", "9.5 [8.0, 11.0]"],
        "learning rate": ["0.10", "1e-3"],
        "p": ["", "0.25"],
    }
)


def test_columns_line_up_and_no_cell_is_taken_for_a_number():
    assert to_text(TABLE).splitlines() == [
        "technique           EM [95%]  learning rate     p",
        "LoRA       50.0 [40.0, 60.0]           0.10",
        "IA3          9.5 [8.0, 11.0]           1e-3  0.25",
    ]
    assert to_text(TABLE.iloc[:0]) == "technique  EM [95%]  learning rate  p"


def test_a_cell_stays_a_cell_of_a_markdown_table():
    header, line, *rows = to_markdown(
        pd.DataFrame({"a|b": ["x|y", "two\nlines"], "p": ["0.10", ""]})
    ).splitlines()
    assert [cell.strip() for cell in header.split(" | ")] == ["| a\\|b", "p |"]
    assert line.startswith("|:--") and line.endswith("-:|")
    assert [[cell.strip("| ") for cell in row.split(" | ")] for row in rows] == [
        ["x\\|y", "0.10"],
        ["two lines", ""],
    ]


def test_columns_of_words_are_set_to_the_left():
    assert ":|" not in to_markdown(TABLE, numbers=False)
