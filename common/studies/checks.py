"""The faults of a study's file: each as a place and a sentence, all of them in one message."""

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from ..faults import refuse

Place = tuple[str | int, ...]
"""Keys and positions from the top of a file to a part of it."""

CLOSED = ConfigDict(extra="forbid")
"""Of a section that has no keys but its fields."""

_WRONG = "wrong"
_LONGEST = 80
"""Characters of a value that a sentence quotes."""


def wrong(reason: str) -> PydanticCustomError:
    """The error that a validator raises. reason: the rest of a sentence whose subject is the place."""
    return PydanticCustomError(_WRONG, "{reason}", {"reason": reason})


def must(be: str, hold: Callable[[Any], bool] = lambda found: True, of: str = "") -> WrapValidator:
    """Makes one fault of whatever pydantic finds wrong with a value; the faults of its parts stay what they are.

    be: what the value must be, with the verb. hold: whether it is, once pydantic has converted it. of: whose value it is.
    """

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            found = handler(value)
        except ValidationError as error:
            if any(fault["loc"] or fault["type"] == _WRONG for fault in error.errors()):
                raise
        else:
            if hold(found):
                return found
        raise wrong(f"is {quoted(value)}{of and f' for {of}'}; it must {be}")

    return WrapValidator(check)


def quoted(value: Any) -> str:
    """A value as a fault shows it, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def like(word: object, known: Iterable[str]) -> str:
    """A question whether the most similar of the known words was meant; "" if none is similar."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def list_type(value: Any) -> Any:
    """The type of a list of values, at least one and each once."""

    def check(values: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        found = handler(values)
        if len({shown(value) for value in found}) < len(found):
            raise wrong(f"lists a value twice: {quoted(values)}")
        return found

    one = must("be a list of at least one value")
    return Annotated[list[value], Field(min_length=1), one, WrapValidator(check)]


def shown(value: object) -> str:
    """A field's value as tables, names and sentences show it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


class Faults:
    """The faults of one file. Of each place the first one counts."""

    def __init__(self, file: str):
        self._file = file
        self._found: dict[Place, str] = {}

    def add(self, place: Place, reason: str) -> None:
        """Note a fault. reason: the rest of a sentence whose subject is the place."""
        self._found.setdefault(place, reason)

    @contextlib.contextmanager
    def below(self, *place: str | int) -> Iterator[None]:
        """Note the faults that pydantic finds within the block, which checks what lies at the place."""
        try:
            yield
        except ValidationError as error:
            for fault in error.errors(include_url=False):
                self.add((*place, *fault["loc"]), fault["msg"])

    def refuse(self) -> None:
        """Raise UserError if there are any."""
        found = [
            {"place": ".".join(map(_part, place)) or "the file", "reason": f" {reason}."}
            for place, reason in self._found.items()
        ]
        refuse(self._file, found, remedy="")


def _part(key: str | int) -> str:
    """A part of a place, which a user may have called anything."""
    return str(key) if re.fullmatch(r"[\w.+-]{1,60}", str(key)) else quoted(key)
