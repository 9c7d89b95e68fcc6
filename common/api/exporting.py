"""`export`: a stored model as a folder that others open without this project."""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..export.exporting import Exported
    from .fitting import Run


def export(
    model: "str | PathLike[str] | Run",
    to: str | PathLike[str],
    format: str = "merged",
    *,
    license: str | None = None,
    push_to_hub: str | None = None,
    private: bool = False,
) -> "Exported":
    """Write a stored model into a new or empty folder: a URI, a run or its id, or the folder of a logged model.

    The arguments are those of `scripts/export.py`. The result has `folder`, and `lines` for the reader. UserError where the
    model's technique cannot be exported in this format, or the folder, opened without this project, answers otherwise: then
    nothing is written.
    """
    from ..export import exporting
    from .fitting import Run

    return exporting.export(
        model.model_uri if isinstance(model, Run) else str(model),
        str(to),
        format,
        license,
        push_to_hub,
        private,
    )


def formats_markdown() -> str:
    """The table of docs/EXPORT.md: which technique leaves in which format; the techniques are those of the scripts."""
    from ..export import formats
    from ..models.families import FAMILIES
    from ..tasks.table import DEFAULT_TASK, task_of
    from .technique_scripts import techniques

    family = FAMILIES["bert"]
    # What a file decides has no kind of its own.
    whole = [kind for kind in techniques().values() if not kind.needs]
    kinds = {kind.name: formats.kind_of(kind().method(family)) for kind in whole}
    return formats.markdown(kinds, task_of(DEFAULT_TASK))
