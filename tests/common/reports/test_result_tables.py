"""Tables of README and docs/: made of the JSON in docs/results/, and no figure is typed."""

import json
import re
import subprocess
import sys

import pytest

from common.errors import UserError
from common.paths import ROOT
from common.reports import result_tables
from common.reports.result_tables import FIGURES, RESULTS, TABLE, cell, markdown, pages, read, save, written
from tests.support.pages import prose

FILES = sorted(RESULTS.glob("*.json"))
PAGES = {page.name: page.read_text() for page in pages()}
FIGURE_IN_TEXT = re.compile(
    r"(?<![\w.])\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?<![\w.,])\d+\.\d+(?![\w.]*\.\d)|\d+(?=%)"
)
"""1,234 and 0.5 and 12%: what is a figure in a sentence, whatever it is about."""
NO_FIGURES = re.compile(r"`[^`]*`|\]\([^)]*\)|^\|.*$|95%|\b(?:Python|arXiv|BY-SA) [\d.]+", re.M)
"""Code, links, tables of texts, the level of intervals, versions and numbers of papers."""
RESULT = {
    "provenance": {"command": "python benchmarks/training.py"},
    "rows": [
        {"technique": "LoRA", "f1": [58.44, 54.3, 62.4], "seconds": 63, "rate": 1e-3},
        {"technique": "IA3", "f1": [7, 6, 8], "difference": -1234.5},
    ],
    "columns": [
        {"title": "technique", "align": "left", "format": "{technique}"},
        {"title": "F1 [95%]", "align": "right", "format": "{f1[0]:.1f} [{f1[1]:.1f}, {f1[2]:.1f}]"},
        {"title": "to the best", "align": "right", "format": ["{difference:,.1f}", "best"]},
        {"title": "time", "align": "right", "format": "{seconds!t}"},
        {"title": "rate", "align": "left", "format": "{rate!e}"},
    ],
    "views": {"short": [{"title": "", "align": "left", "format": "{technique}"}]},
}


def test_there_are_tables_and_each_file_is_shown():
    shown = {
        found["name"] for text in PAGES.values() for form in (TABLE, FIGURES) for found in form.finditer(text)
    }
    assert len(FILES) > 15 and shown == {file.stem for file in FILES}
    assert sum(len(TABLE.findall(text)) for text in PAGES.values()) > 15


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_where_its_figures_come_from(file):
    """The command, and the commit and day of the measurement, or those on which the figures were recorded."""
    provenance = read(file)["provenance"]
    assert {"command", "date", "commit"} <= provenance.keys() or {
        "command",
        "recorded_on",
        "recorded_in",
    } <= provenance.keys()
    assert all(provenance.values())


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_its_tables_are_those_of_the_files(page):
    text = page.read_text()
    assert written(text) == text, "run: make tables"


def test_a_figure_that_is_edited_by_hand_is_noticed():
    text = PAGES["RESULTS.md"]
    (table,) = [found for found in TABLE.finditer(text) if found["name"] == "demo"]
    edited = text[: table.start()] + table[0].replace("58.4", "59.4") + text[table.end() :]
    assert edited != text and written(edited) == text


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_table_with_columns_of_figures_is_made_of_a_file(page):
    """Columns that are set to the right hold figures."""
    assert "---:" not in TABLE.sub("", prose(page))


def sections(page):
    """(heading, text) of each section of a page; what stands before the first heading of the second rank is one."""
    return re.findall(r"^##? (.*)\n((?:(?!^##? ).*\n)*)", prose(page), re.M)


SECTIONS = [
    pytest.param(text, id=f"{page.stem}: {heading}")
    for page in pages()
    for heading, text in sections(page)
    if page.stem in ("RESULTS", "PERFORMANCE") or TABLE.search(text) or FIGURES.search(text)
]


@pytest.mark.parametrize("text", SECTIONS)
def test_figures_in_sentences_are_those_of_the_sections_files(text):
    names = {found["name"] for form in (TABLE, FIGURES) for found in form.finditer(text)}
    known = {each for name in names for each in numbers(read(RESULTS / f"{name}.json"))}
    sentences = NO_FIGURES.sub(" ", TABLE.sub("", text))
    unknown = [figure for figure in FIGURE_IN_TEXT.findall(sentences) if number(figure) not in known]
    assert not unknown, "not in the rows, sentences or provenance of the section's files"


def number(text: str) -> float:
    return float(text.replace(",", ""))


def numbers_in(text: str) -> set[float]:
    return {number(found) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", text.replace(", ", " "))}


def numbers(value) -> set[float]:
    """Every number in a file, without its sign; those in texts too."""
    if isinstance(value, str):
        return numbers_in(value)
    if isinstance(value, dict):
        return {each for key, part in value.items() for each in numbers(key) | numbers(part)}
    if isinstance(value, list):
        return {each for part in value for each in numbers(part)}
    return {abs(float(value))}


def test_cells_and_views():
    assert markdown(RESULT).splitlines() == [
        "| technique | F1 [95%] | to the best | time | rate |",
        "| --- | ---: | ---: | ---: | --- |",
        "| LoRA | 58.4 [54.3, 62.4] | best | 1:03 | 1e-3 |",
        "| IA3 | 7.0 [6.0, 8.0] | -1,234.5 | | |",
    ]
    assert markdown(RESULT, "short") == "| |\n| --- |\n| LoRA |\n| IA3 |\n"
    with pytest.raises(UserError, match="no view 'long', only short"):
        markdown(RESULT, "long")
    assert cell({"rate": 3.5e-5}, "{rate!e}") == "3.5e-5"
    # A figure of another kind than its format is a fault, not an empty cell.
    with pytest.raises((TypeError, ValueError)):
        cell({"f1": "58.4"}, "{f1:.1f}")


def test_a_rerun_replaces_rows_and_keeps_the_layout(tmp_path):
    file = tmp_path / "training.json"
    file.write_text(result_tables.as_json(RESULT))
    rows = [{"technique": "LoRA", "f1": [60, 59, 61], "difference": None, "seconds": float("nan"), "rate": 1}]
    with pytest.raises(UserError, match="no row has the fields of the column 'time'"):
        save(file, rows, {"command": "again"})
    assert json.loads(file.read_text()) == RESULT
    rows[0]["seconds"] = 3600.0
    save(file, rows, {"command": "again"})
    found = read(file)
    assert found["provenance"] == {"command": "again"} and found["columns"] == RESULT["columns"]
    assert markdown(found).splitlines()[-1] == "| LoRA | 60.0 [59.0, 61.0] | best | 1:00:00 | 1e0 |"
    page = "<!-- table: training short -->\nold\n<!-- end -->\n"
    assert written(page, tmp_path) == page.replace("old\n", markdown(found, "short"))


def test_a_new_table_has_a_column_for_each_field(tmp_path):
    save(tmp_path / "new.json", [{"way": "a", "times": 2}, {"way": "b", "more": 1}], {"command": "x"})
    header, _, *rows = markdown(read(tmp_path / "new.json")).splitlines()
    assert header == "| way | times | more |" and rows == ["| a | 2 | |", "| b | | 1 |"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no table is named"),
        ("{", "is not JSON"),
        (json.dumps({"rows": [], "columns": []}), "has no 'provenance'"),
        (json.dumps(RESULT | {"provenance": {"date": "today"}}), "names no command"),
        (json.dumps(RESULT | {"rows": [{"technique": "LoRA"}]}), "column 'F1"),
    ],
)
def test_a_faulty_file_is_refused_in_one_line(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=reason):
        written("<!-- table: bad -->\n<!-- end -->", tmp_path)


def test_the_command_finds_nothing_to_do():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "tables.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_table_without_its_end_swallows_nothing_and_is_refused(tmp_path):
    save(tmp_path / "one.json", [{"way": "a"}], {"command": "x"})
    whole = "<!-- table: one -->\n<!-- end -->\n"
    page = f"<!-- table: two -->\nA sentence.\n{whole}"
    (only,) = TABLE.finditer(page)
    assert only["name"] == "one"
    with pytest.raises(UserError, match="<!-- table: two --> has no `<!-- end -->`"):
        written(page, tmp_path)
    assert "| a |" in written(f"A sentence.\n{whole}", tmp_path)
