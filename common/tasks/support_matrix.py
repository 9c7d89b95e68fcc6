"""Which technique works with which family, for which task, as Markdown: the table of docs/MODELS.md."""

from collections.abc import Mapping

from ..models.families import FAMILIES
from .table import TASKS, head_of, refusal

BEGIN, END = "<!-- matrix, by scripts/matrix.py -->", "<!-- end of matrix -->"
"""Lines between which docs/MODELS.md holds it."""


def markdown(techniques: Mapping[str, str]) -> str:
    """A table of tasks for each family and technique, and the reasons of what is refused.

    techniques: key → name. A cell holds the initials of the tasks that are offered.
    """
    reasons: dict[str, str] = {}
    rows = [["family", *techniques.values()], ["---"] * (len(techniques) + 1)]
    for family in FAMILIES.values():
        cells = [_cell(family, technique, reasons) for technique in techniques]
        rows.append([family.model_type, *cells])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    tasks = ", ".join(f"{_initial(name)}: {name}" for name in TASKS)
    notes = "".join(f"\n- {mark} {reason}" for reason, mark in reasons.items())
    return f"{table}\n\n{tasks}.\n\nWhat is refused, before any weight is read, and why:\n{notes}\n"


def _cell(family, technique: str, reasons: dict[str, str]) -> str:
    offered, refused = "", ""
    for name, task in TASKS.items():
        if head_of(task, family) is None:
            continue
        reason = refusal(family, technique, task)
        if reason is None:
            offered += _initial(name)
        else:
            mark = reasons.setdefault(reason, f"[{len(reasons) + 1}]")
            refused += mark if mark not in refused else ""
    return " ".join(filter(None, ["".join(sorted(offered)), refused]))


def _initial(task: str) -> str:
    return task[0].upper()
