"""The exceptions whose messages are written for the user."""


class UserError(Exception):
    """Something that the user can fix: the message names the file or flag and the remedy; scripts print it without a traceback."""


class NotHere(UserError):
    """A run is not possible on this machine at this time: a hub or a store does not answer, or a package is missing. Elsewhere,
    or later, the same run may be possible."""


LONGEST = 500
"""Characters of a line that is quoted in a message."""


def first_line(problem: BaseException | str | None, otherwise: str = "") -> str:
    """The first line of an error's message or of a text, cut to 500 characters; where it says nothing, `otherwise`, or the
    name of the error's type."""
    lines = [] if problem is None else str(problem).strip().splitlines()
    return lines[0].strip()[:LONGEST] if lines else otherwise or type(problem).__name__


def last_line(text: str, otherwise: str) -> str:
    """The last line of a text that is not empty, such as a process's last word, cut to 500 characters; else `otherwise`."""
    lines = text.strip().splitlines()
    return lines[-1].strip()[:LONGEST] if lines else otherwise
