"""The language of questions: named by the user, or by the file itself."""

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from ..scoring.languages import CODE

FIELDS = ("language", "lang")
"""Keys by which a file, an article, a paragraph or a question says what language it is in."""


def checked(language: str, name: str = "--language") -> str:
    """The code of a language or a scoring convention as it is recorded; UserError if it is none. name: where it was given."""
    code = language.strip()
    if not CODE.fullmatch(code):
        raise UserError(
            f"{name} is {language!r}: give a code such as de, zh or pt-BR, or the convention korquad or cmrc."
        )
    # By region or script as it is usually written; what decides the rules ignores case.
    return code.lower() if "-" not in code else code


def of_file(content: Any, form: str = "auto") -> str | None:
    """The language of a JSON file's questions, where it or the shape that the user names says so; None if neither does.

    Files of KorQuAD name themselves as their version.
    """
    version = str(content.get("version")).lower() if isinstance(content, Mapping) else ""
    convention = next(
        (name for name in ("korquad", "cmrc") if name == form or version.startswith(name)), None
    )
    return named(content) or convention


def named(*records: Any) -> str | None:
    """The language that the innermost of these records names, outermost first; None if none does, or by no code."""
    for record in reversed(records):
        for field in FIELDS if isinstance(record, Mapping) else ():
            value = record.get(field)
            if isinstance(value, str) and CODE.fullmatch(value.strip()):
                return checked(value)
    return None
