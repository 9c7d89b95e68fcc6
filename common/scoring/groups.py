"""Which questions belong together: those of an article, or of a paragraph, are alike."""

from collections.abc import Mapping, Sequence
from typing import Any


def groups_of(examples: Sequence[Mapping[str, Any]], by: str) -> list[str]:
    """For each example the name of its group: its title (or context), merged where contexts are shared."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    of_context: dict[str, str] = {}
    for e in examples:
        one, other = find(e[by]), find(of_context.setdefault(e["context"], e[by]))
        leader[max(one, other)] = min(one, other)
    return [find(e[by]) for e in examples]
