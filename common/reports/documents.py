"""A report as blocks → Markdown, or one HTML file that needs nothing else."""

import base64
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from . import text_tables


@dataclass(frozen=True)
class Text:
    """A paragraph; line breaks in it have no meaning."""

    text: str


@dataclass(frozen=True)
class List:
    """Items of a bulleted list."""

    items: list[str]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    header: list[str]
    rows: list[list[str]]
    numbers: bool = True
    """Whether all columns but the first hold numbers, which are aligned to the right."""
    strong: list[bool] = field(default_factory=list)
    """Rows to set in bold."""

    def is_strong(self, row: int) -> bool:
        """Whether the row of this index is set in bold."""
        return row < len(self.strong) and self.strong[row]


@dataclass(frozen=True)
class Figure:
    """A PNG. Markdown links to it by its name, HTML contains it."""

    file: Path
    caption: str

    @property
    def base64(self) -> str:
        """The file's content for a data URL."""
        return base64.b64encode(self.file.read_bytes()).decode()


Block = Text | List | Table | Figure


@dataclass(frozen=True)
class Document:
    """A title, the blocks before the first heading, and sections as (heading, blocks)."""

    title: str
    introduction: list[Block]
    sections: list[tuple[str, list[Block]]]


def to_markdown(document: Document) -> str:
    """GitHub's Markdown; every character of the texts stays text."""
    parts = [f"# {_plain(document.title)}", *map(_markdown, document.introduction)]
    for heading, blocks in document.sections:
        parts += [f"## {_plain(heading)}", *map(_markdown, blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Text(text):
            return _plain(text)
        case List(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Figure(file, caption):
            return f"![{_plain(caption)}]({file.name})\n\n{_plain(caption)}"
        case Table(header, rows, numbers):
            lines = []
            for i, row in enumerate(rows):
                bold = "**" if block.is_strong(i) else ""
                lines.append([f"{bold}{_plain(cell)}{bold}" if cell else "" for cell in row])
            table = pd.DataFrame(lines, columns=[_plain(name) for name in header])
            return text_tables.to_markdown(table, numbers).rstrip()


def _plain(text: str) -> str:
    text = (
        re.sub(r"([\\`*~])", r"\\\1", " ".join(str(text).split())).replace("](", "]\\(").replace("&", "&amp;")
    )
    return re.sub(r"<(?=\S)", "&lt;", text)


def to_html(document: Document) -> str:
    """One page without scripts that loads nothing: readable on a phone, in a dark theme, and on paper."""
    return _templates().get_template("report.html.jinja").render(document=document)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["unbroken"] = _unbroken
    environment.tests["block"] = lambda block, kind: type(block).__name__ == kind
    return environment


def _unbroken(text: str) -> Markup:
    """Keep numbers such as 5e-3 on one line."""
    return Markup(re.sub(r"\b\d[\d.]*e-\d+\b", r'<span class="whole">\g<0></span>', str(escape(text))))
