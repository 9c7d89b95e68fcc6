"""The language of questions: named by the user, or by the file itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..scoring.languages import CODE
from .columns import USUAL
from .question_fields import QuestionFault

FIELDS = USUAL["language"]
"""Keys by which a file, an article, a paragraph or a question says what language it is in."""


def checked(language: str, name: str = "--language") -> str:
    """The code of a language or a scoring convention as it is recorded; UserError if it is none. name: where it was given."""
    code = _code(language)
    if code is None:
        raise UserError(
            f"{name} is {language!r}: give a code such as de, zh or pt-BR, or the convention korquad or cmrc."
        )
    return code


def of_file(path: Path, content: Any, form: str = "auto", *, strict: bool = True) -> str | None:
    """The language of a JSON file's questions, where it or the shape that the user names says so; None if neither does.

    Files of KorQuAD name themselves as their version. A language that is no code is a UserError; without `strict` it is left out.
    """
    version = str(content.get("version")).lower() if isinstance(content, Mapping) else ""
    convention = next(
        (name for name in ("korquad", "cmrc") if name == form or version.startswith(name)), None
    )
    try:
        return named(content) or convention
    except QuestionFault as fault:
        if strict:
            raise UserError(f"{path}{fault}") from None
        return convention


def named(*records: Any) -> str | None:
    """The language that the innermost of these records names, outermost first; None if none does.

    QuestionFault if what it names is no code.
    """
    for record in reversed(records):
        for value in kept(record).values():
            if value is None or value != value or isinstance(value, str) and not value.strip():
                continue
            code = _code(value) if isinstance(value, str) else None
            if code is None:
                raise QuestionFault(
                    f": the language is {value!r}; correct it to a code such as de, zh or pt-BR, or remove it "
                    "(prepare_data.py, score.py and evaluate.py take --language instead)."
                )
            return code
    return None


def kept(record: Any) -> dict[str, Any]:
    """What a record says of its language, for a record that is made of it."""
    return {name: record[name] for name in FIELDS if name in record} if isinstance(record, Mapping) else {}


def _code(language: str) -> str | None:
    code = language.strip().replace("_", "-")
    if not CODE.fullmatch(code):
        return None
    # By region or script as it is usually written; what decides the rules ignores case.
    return code.lower() if "-" not in code else code
