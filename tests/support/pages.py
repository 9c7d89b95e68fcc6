"""README and docs/ as tests read them: what they have people type, and where they lead."""

import re
from pathlib import Path

from common.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def typed_lines(page: Path) -> list[str]:
    """The lines of the blocks to be typed, without their comments; a line that goes on behind a backslash is one."""
    blocks = [text for language, text in _FENCED.findall(page.read_text()) if not language]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def commands(page: Path) -> list[str]:
    """The typed lines, and what stands in the text as code."""
    return typed_lines(page) + [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return _FENCED.sub("", page.read_text())


def links(page: Path) -> list[tuple[str, str]]:
    """(file, heading) of each link to a file of the project; either may be empty."""
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", prose(page))
    return [(file, heading) for file, heading in found if "://" not in file]
