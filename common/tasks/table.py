"""The tasks that the suite trains for. A new task is a folder here and a line in TASKS."""

from ..errors import UserError
from ..models.families import Family
from .classification.multi_label import MultiLabelClassification
from .classification.task import Classification
from .extractive_qa.task import ExtractiveQA
from .generative_qa.task import GenerativeQA
from .interface import Task

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        ExtractiveQA(),
        Classification(),
        GenerativeQA(),
        MultiLabelClassification(),
    )
}

DEFAULT_TASK = ExtractiveQA.name


def task_of(name: str) -> Task:
    """The task of a name; UserError names the tasks at hand if there is none."""
    try:
        return TASKS[name]
    except KeyError:
        raise UserError(f"--task is {name!r}: choose one of {', '.join(TASKS)}.") from None


def head_of(task: Task, family: Family) -> str | None:
    """The head class that a family has for a task; None where it is not offered for the task."""
    head = task.head(family.kind)
    return head if head in family.heads else None


def refusal(family: Family, technique: str, task: Task) -> str | None:
    """Why a family cannot do a task by a technique (its key); None if it can."""
    head = head_of(task, family)
    if head is None:
        offered = [other.name for other in TASKS.values() if head_of(other, family)]
        return f"the family is offered for {' and '.join(offered)} only"
    return family.refusal(technique, head)
