"""Fields of a question as files have them: checked, with what is wrong as the end of a sentence that begins with its place."""

import ast
import json
import re
from typing import Any, NamedTuple, TypeVar

Kind = TypeVar("Kind")

KINDS: dict[type, str] = {str: "text", list: "a list", int: "a whole number"}

REFERENCES = "references for scoring"
"""Key of a question whose accepted texts are others than the answers that were found in its context."""


PLACE = "place in the file"
"""Key of an article that is named in faults by this place, not by its number and title."""

FAULT = "fault of the record"
"""Key of an article that stands for a record which is none, with what is wrong with it."""


class QuestionFault(Exception):
    """A fault of one record."""


class Answer(NamedTuple):
    """An answer that a file gives."""

    text: str
    start: int
    """Where it begins in the context, in the file's units; -1 if that is not given."""
    scored: bool = True
    """Whether predictions are scored by it."""
    trained: bool = True
    """Whether it is trained on, once it is found in the context."""


def listed(record: Any, name: str) -> list[Any]:
    """The list of that name; empty if there is none, which is reported with its place when the file is read."""
    value = record.get(name) if isinstance(record, dict) else None
    return value if isinstance(value, list) else []


def field(record: Any, name: str, kind: type[Kind]) -> Kind:
    if not isinstance(record, dict):
        raise QuestionFault(f" must be an object, not {type(record).__name__}.")
    if name not in record:
        raise QuestionFault(f" has no {name!r}.")
    if not isinstance(record[name], kind) or isinstance(record[name], bool):
        raise QuestionFault(f": {name!r} must be {KINDS[kind]}, not {type(record[name]).__name__}.")
    found: Kind = record[name]
    return found


def context_of(record: Any) -> str:
    context = field(record, "context", str)
    if not context.strip():
        raise QuestionFault(": the context is empty; remove the paragraph or give its text.")
    return context


def check_encodable(*texts: str) -> None:
    r"""JSON can spell half of a surrogate pair ("\ud83d"), which is no character and cannot be stored."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise QuestionFault(
            ": its title, context, question, id or an answer has half of a surrogate pair; correct the text."
        ) from None


def as_id(value: Any) -> str:
    """An id as text; empty if there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value) if str(value).strip() else ""


def as_flag(value: Any) -> bool:
    if value in (None, False, 0, "", "0") or isinstance(value, str) and value.lower() == "false":
        return False
    if is_true(value):
        return True
    raise QuestionFault(f": 'is_impossible' must be true or false, not {value!r}.")


def is_true(value: Any) -> bool:
    return value in (True, 1, "1") or isinstance(value, str) and value.lower() == "true"


def answers_of(qa: dict[str, Any], *, required: bool) -> list[Answer]:
    """The answers of a question in any known form; without `required` there may be none."""
    if "answers" not in qa and "answer" in qa:
        qa = qa | {"answers": [qa["answer"]] if isinstance(qa["answer"], str) else qa["answer"]}
    answers = qa.get("answers")
    if not answers and not required:
        return []
    if isinstance(answers, dict) and isinstance(answers.get("text"), list):
        # As `datasets` has them.
        starts = answers.get("answer_start")
        starts = [-1] * len(answers["text"]) if starts is None else starts
        if not isinstance(starts, list) or len(starts) != len(answers["text"]):
            raise QuestionFault(": 'answers' must hold as many 'answer_start' as 'text'.")
        answers = [{"text": t, "answer_start": s} for t, s in zip(answers["text"], starts, strict=True)]
    elif isinstance(answers, dict):
        answers = [answers]
    found = []
    for n, answer in enumerate(
        field(qa | {"answers": answers} if answers is not None else qa, "answers", list)
    ):
        if isinstance(answer, str):
            answer = {"text": answer}
        try:
            if answer is not None and isinstance(answer, dict) and answer.get("text") is None:
                answer = answer | {"text": ""} if "text" in answer else answer
            found.append(Answer(field(answer, "text", str), _start(answer)))
        except QuestionFault as fault:
            raise QuestionFault(f", answer {n}{fault}") from None
    accepted = qa.get(REFERENCES)
    if not isinstance(accepted, list):
        return found
    texts = [text for text in accepted if isinstance(text, str)]
    here = {answer.text for answer in found}
    return [
        *(answer._replace(scored=answer.text in texts) for answer in found),
        *(Answer(text, -1, trained=False) for text in texts if text not in here),
    ]


def of_cell(value: Any, *kinds: type) -> Any:
    """A list of these kinds, or an object with "text", that a cell of a table holds as text, in the spelling of JSON, Python or
    NumPy; else the value itself."""
    text = value.strip() if isinstance(value, str) else ""
    if not text.startswith(("[", "{")):
        return value
    text = re.sub(r"\barray\((\[.*?\])(?:,\s*dtype=\w+)?\)", r"\1", text, flags=re.DOTALL)
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        plain = isinstance(found, list) and all(isinstance(each, kinds) for each in found)
        return found if plain or isinstance(found, dict) and "text" in found else value
    return value


def answers_of_row(answers: Any, start: Any) -> Any:
    """Answers of a table's row, whose places may be in a column of their own, as `answers_of` reads them.

    One without text is none: a table cannot leave a cell out.
    """
    answers, start = of_cell(answers, str, dict), of_cell(start, int)
    if answers is None or isinstance(answers, str) and not answers.strip():
        return None
    if isinstance(answers, str):
        first = start[0] if isinstance(start, list) and len(start) == 1 else start
        return [{"text": answers, "answer_start": first}]
    if start is not None and isinstance(answers, list) and all(isinstance(text, str) for text in answers):
        starts = start if isinstance(start, list) else [start] if len(answers) == 1 else start
        return {"text": answers, "answer_start": starts} if answers else answers
    return answers


def _start(answer: dict[str, Any]) -> int:
    start = answer.get("answer_start")
    if start is None or isinstance(start, str) and not start.strip() or start != start:
        return -1
    if isinstance(start, str) and re.fullmatch(r"\s*-?\d{1,9}(\.0*)?\s*", start):
        start = float(start)
    if isinstance(start, float) and start.is_integer():
        start = int(start)
    if isinstance(start, bool) or not isinstance(start, int):
        raise QuestionFault(f": 'answer_start' must be a whole number, not {type(start).__name__}.")
    return max(start, -1)
