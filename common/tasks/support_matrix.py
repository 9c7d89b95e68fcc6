"""Which technique works with which family, for which task, as Markdown: the table of docs/MODELS.md."""

import textwrap
from collections.abc import Collection, Mapping

from ..models import peft_kinds
from ..models.families import FAMILIES, Family
from .table import TASKS, head_of, refusal

BEGIN, END = "<!-- matrix, by scripts/matrix.py -->", "<!-- end of matrix -->"
"""The lines of docs/MODELS.md before and after the table."""

PEFT_BEGIN, PEFT_END = "<!-- types of PEFT, by scripts/matrix.py -->", "<!-- end of types -->"
"""The lines before and after the types of PEFT."""


def markdown(techniques: Mapping[str, str]) -> str:
    """A table of tasks and refused techniques for each family, and the reasons of refusals.

    techniques: key → name. Tasks are named by their initials.
    """
    reasons: dict[str, str] = {}
    rows = [["family", "tasks", "techniques"], ["---"] * 3]
    for family in FAMILIES.values():
        offered = "".join(sorted(_initial(name) for name, task in TASKS.items() if head_of(task, family)))
        refused = [_refused(family, key, name, reasons) for key, name in techniques.items()]
        rows.append(
            [
                family.model_type,
                offered,
                f"all but {', '.join(filter(None, refused))}" if any(refused) else "all",
            ]
        )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    tasks = ", ".join(f"{_initial(name)}: {name}" for name in TASKS)
    notes = "".join(f"\n- {mark} {reason}" for reason, mark in reasons.items())
    names = textwrap.fill(f"Techniques: {', '.join(techniques.values())}.", 120)
    return (
        f"{table}\n\n{tasks}.\n\n{names}\n\nWhat is refused, before any weight is read, and why:\n{notes}\n"
    )


def peft_markdown() -> str:
    """The types of PEFT that can be trained by file, and the others with the reasons."""

    def listed(kinds: Collection[str]) -> str:
        return textwrap.fill(f"{', '.join(sorted(kinds))}.", 120)

    parts = [
        f"These types of PEFT work by file:\n\n{listed(peft_kinds.WORKING)}",
        f"All but {', '.join(sorted(peft_kinds.CANNOT_MERGE.union(peft_kinds.PROMPT_TYPES)))} merge into their base.",
        f"Not with GPT-2, because PEFT has no layers for its Conv1D:\n\n{listed(peft_kinds.LINEAR_ONLY)}",
        "Types that are refused, and why:\n\n"
        + "\n".join(f"- {kind}: {reason}" for kind, reason in sorted(peft_kinds.REFUSED.items())),
        "Fields that a file cannot set, because the suite does, and why:\n\n"
        + "\n".join(f"- `{name}`: {reason}" for name, reason in sorted(peft_kinds.SET_BY_SUITE.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _refused(family: Family, technique: str, name: str, reasons: dict[str, str]) -> str:
    """A technique's name with the marks of the reasons for which a family refuses it, and the tasks where not for all; ""
    where it does all of them."""
    found = {task: refusal(family, technique, TASKS[task]) for task in TASKS if head_of(TASKS[task], family)}
    refused = {task: reason for task, reason in found.items() if reason}
    if not refused:
        return ""
    marks = "".join(
        reasons.setdefault(reason, f"[{len(reasons) + 1}]") for reason in dict.fromkeys(refused.values())
    )
    tasks = f" for {''.join(sorted(map(_initial, refused)))}" if len(refused) < len(found) else ""
    return f"{name}{tasks} {marks}"


def _initial(task: str) -> str:
    return task[0].upper()
