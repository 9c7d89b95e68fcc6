"""The forms in which questions are asked from Python: texts, lists, dicts and streams of dicts."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from ..errors import UserError

Example = dict[str, str]
"""`question` and `context`."""

Form = Literal["one", "list", "stream"]

HOW = "give question= and context=, or a dict with both, or a list of such dicts"


def asked(inputs: tuple[Any, ...], question: Any, context: Any) -> tuple[Iterable[Any], Form]:
    """(what is asked, each to be given to `checked`; whether it is one question, several, or a stream).

    inputs: positional arguments. UserError where they are in none of the forms, or lists differ in length.
    """
    if not inputs:
        return _of_names(question, context)
    if question is not None or context is not None:
        raise UserError("Questions are given both by position and by name: leave one of them out.")
    if len(inputs) == 2 and all(isinstance(each, str) for each in inputs):
        return _of_names(*inputs)
    if len(inputs) > 1:
        return inputs, "list"
    (given,) = inputs
    if isinstance(given, Mapping):
        return inputs, "one"
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UserError(f"A {type(given).__name__} alone cannot be answered: {HOW}.")
    return given, "stream" if isinstance(given, Iterator) else "list"


def _of_names(question: Any, context: Any) -> tuple[list[Example], Form]:
    for name, value in (("question", question), ("context", context)):
        if value is None:
            raise UserError(f"There is no {name}: {HOW}.")
    if isinstance(question, str) and isinstance(context, str):
        return [{"question": question, "context": context}], "one"
    columns = {"question": question, "context": context}
    for name, value in columns.items():
        if not isinstance(value, Iterable) or isinstance(value, Mapping):
            raise UserError(f"{name} is a {type(value).__name__}; it is a text or a list of texts.")
    lists = {name: list(value) for name, value in columns.items() if not isinstance(value, str)}
    if len({len(values) for values in lists.values()}) > 1:
        raise UserError(
            f"There are {len(lists['question'])} questions and {len(lists['context'])} contexts: give as many of both, or one "
            "text for all."
        )
    n = len(next(iter(lists.values())))
    questions, contexts = (lists.get(name, [value] * n) for name, value in columns.items())
    return [{"question": q, "context": c} for q, c in zip(questions, contexts, strict=True)], "list"


def checked(given: Any, number: int) -> Example:
    """A question and its context; UserError says what is wrong with the number-th (from 0)."""
    if not isinstance(given, Mapping):
        raise UserError(f"Question {number} is a {type(given).__name__}, not a dict: {HOW}.")
    for name in ("question", "context"):
        value = given.get(name)
        if value is None:
            raise UserError(f"Question {number} has no {name!r}: {HOW}.")
        if not isinstance(value, str):
            raise UserError(f"Question {number}: its {name} is a {type(value).__name__}, not a text.")
        if not value.strip():
            raise UserError(f"Question {number}: its {name} is empty.")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"Question {number}: its {name} holds a lone surrogate, which is not a character."
            ) from None
    return {"question": given["question"], "context": given["context"]}
