"""Numbers with what they count."""


def count_of(n: float, many: str, one: str | None = None) -> str:
    """Such as "1 question" or "1,054 questions". many: the words after any other number; one: those after 1, if it is not
    enough to leave out the last s.
    """
    return f"{n:,.0f} {many if n != 1 else one or many.removesuffix('s')}"
