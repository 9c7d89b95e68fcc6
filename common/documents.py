"""A report as blocks → Markdown, or one HTML file that needs nothing else."""

import base64
import html
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Text:
    """A paragraph; line breaks in it count for nothing."""

    text: str


@dataclass(frozen=True)
class List:
    items: list[str]


@dataclass(frozen=True)
class Table:
    header: list[str]
    rows: list[list[str]]
    numbers: bool = True
    """Whether all columns but the first hold numbers, set to the right."""
    strong: list[bool] = field(default_factory=list)
    """Rows to set in bold."""


@dataclass(frozen=True)
class Figure:
    file: Path
    """A PNG; Markdown links to it by its name, HTML holds it."""
    caption: str


@dataclass(frozen=True)
class Document:
    title: str
    blocks: list
    """Blocks, and sections as (heading, blocks)."""


def to_markdown(document: Document) -> str:
    """GitHub's Markdown; whatever the texts hold stays text."""
    parts = [f"# {_plain(document.title)}"]
    for block in document.blocks:
        heading, blocks = block if isinstance(block, tuple) else (None, [block])
        parts += [f"## {_plain(heading)}"] if heading else []
        parts += [_markdown(each) for each in blocks]
    return "\n\n".join(parts) + "\n"


def _markdown(block) -> str:
    match block:
        case Text(text):
            return _plain(text)
        case List(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Figure(file, caption):
            return f"![{_plain(caption)}]({file.name})\n\n{_plain(caption)}"
        case Table(header, rows, numbers, strong):
            right = "---:" if numbers else "---"
            lines = [[_plain(name) for name in header], ["---", *[right] * (len(header) - 1)]]
            for i, row in enumerate(rows):
                bold = "**" if i < len(strong) and strong[i] else ""
                lines.append([f"{bold}{_plain(cell)}{bold}" if cell else "" for cell in row])
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    raise TypeError(f"No block of a report: {block!r}")


def _plain(text: str) -> str:
    text = (
        re.sub(r"([\\`*|~])", r"\\\1", " ".join(str(text).split()))
        .replace("](", "]\\(")
        .replace("&", "&amp;")
    )
    return re.sub(r"<(?=\S)", "&lt;", text)


def to_html(document: Document) -> str:
    """One page without scripts that loads nothing: readable on a phone, in the dark, and on paper."""
    body, contents = [], []
    for block in document.blocks:
        if isinstance(block, tuple):
            heading, blocks = block
            name = f"s{len(contents)}"
            contents.append(f'<a href="#{name}">{_escaped(heading)}</a>')
            inner = "\n".join(map(_html, blocks))
            body.append(f'<section id="{name}"><h2>{_escaped(heading)}</h2>\n{inner}\n</section>')
        else:
            body.append(_html(block))
    first = next((i for i, part in enumerate(body) if part.startswith("<section")), len(body))
    body.insert(first, f"<nav>{' '.join(contents)}</nav>")
    return _PAGE.format(title=_escaped(document.title), style=_STYLE, body="\n".join(body))


def _html(block) -> str:
    match block:
        case Text(text):
            # A line must not break within 5e-3.
            whole = re.sub(r"\b\d[\d.]*e-\d+\b", r'<span class="whole">\g<0></span>', _escaped(text))
            return f"<p>{whole}</p>"
        case List(items):
            return f"<ul>{''.join(f'<li>{_escaped(item)}</li>' for item in items)}</ul>"
        case Figure(file, caption):
            content = base64.b64encode(Path(file).read_bytes()).decode()
            image = f'<img alt="{_escaped(caption)}" src="data:image/png;base64,{content}">'
            return f"<figure>{image}<figcaption>{_escaped(caption)}</figcaption></figure>"
        case Table(header, rows, numbers, strong):
            head = "".join(f'<th scope="col">{_escaped(name)}</th>' for name in header)
            lines = []
            for i, row in enumerate(rows):
                bold = ' class="strong"' if i < len(strong) and strong[i] else ""
                cells = "".join(f"<td>{_escaped(cell)}</td>" for cell in row[1:])
                lines.append(f'<tr{bold}><th scope="row">{_escaped(row[0])}</th>{cells}</tr>')
            kind = "numbers" if numbers else "words"
            table = f"<table class={kind!r}><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(lines)}\n</tbody></table>"
            return f'<div class="wide" tabindex="0">{table}</div>'
    raise TypeError(f"No block of a report: {block!r}")


def _escaped(text: str) -> str:
    return html.escape(str(text), quote=True)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { --ink: #1c1e21; --soft: #5b616a; --page: #fff; --line: #d8dce1; --shade: #f2f5f8; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e7ea; --soft: #a4abb5; --page: #15181c; --line: #363c44; --shade: #20252b; --link: #7db8f5; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
main { max-width: 72rem; margin: 0 auto; padding: 1.2rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .4em 0; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2em 0 .5em; padding-top: .5em; border-top: 1px solid var(--line); }
.whole { white-space: nowrap; }
p, ul { max-width: 46rem; margin: .6em 0; }
ul { padding-left: 1.2em; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1.2em 0; }
nav a { color: var(--link); padding: .2em 0; }
.wide { overflow-x: auto; margin: .8em 0; }
.wide:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35em .6em; border-bottom: 1px solid var(--line); vertical-align: top; text-align: left; font-weight: 400; }
thead th { color: var(--soft); vertical-align: bottom; border-bottom-width: 2px; }
.numbers td, .numbers thead th + th { text-align: right; white-space: nowrap; }
.words td { min-width: 8rem; overflow-wrap: anywhere; }
tbody th { position: sticky; left: 0; background: var(--page); min-width: 8rem; max-width: 20rem; }
tr.strong > * { font-weight: 650; background: var(--shade); }
figure { margin: 1.4em 0; }
img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 4px; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem; margin-top: .4em; }
@media (min-width: 48rem) { img { max-width: min(100%, 52rem); } }
@media (max-width: 40rem) { tbody th { max-width: 9.5rem; } th, td { padding: .35em .5em; } }
@media print {
  :root { --ink: #000; --soft: #444; --page: #fff; --line: #bbb; --shade: #eee; --link: #000; }
  body { font-size: 10pt; } nav { display: none; } main { max-width: none; padding: 0; }
  .wide { overflow: visible; } table { font-size: 7pt; } th, td { padding: .2em .3em; } tbody th { position: static; min-width: 0; }
  tr, figure { break-inside: avoid; } h2 { break-after: avoid; } thead { display: table-header-group; }
}
"""
