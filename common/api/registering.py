"""`register`: the best finished run becomes a version of its task's model."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..tasks.table import DEFAULT_TASK, task_of

if TYPE_CHECKING:
    from ..registry.register import Outcome


def register(
    experiment_name: str | None = None,
    *,
    task: str | None = None,
    data_fingerprint: str | None = None,
    data_dir: str | PathLike[str] | None = None,
    dry_run: bool = False,
    also_on: Mapping[str, float] | None = None,
    must_pass: str | PathLike[str] | None = None,
    **rules: Any,
) -> "Outcome":
    """Register the run with the best validation score; champion if it passes the gate, else challenger.

    The arguments are those of `scripts/register_best.py`: rules are what a champion must do, such as `tolerance` or
    `max_latency_ms`; also_on: folder of prepared data → points that it may lose there. dry_run: judge, and write nothing.
    UserError if there is no run, or an argument is wrong.
    """
    from ..registry.gate import Rules, check

    try:
        chosen = Rules(**rules)
    except TypeError as error:
        raise UserError(f"register: {str(error).removeprefix('Rules.__init__() ')}.") from None
    check(chosen)
    from ..registry.demands import AlsoOn, Demands
    from ..registry.register import register_best
    from ..tracking import experiments, store

    store.configure()
    experiment = experiments.experiment_name(experiment_name, task_of(task or DEFAULT_TASK).experiment)
    demands = Demands(
        tuple(AlsoOn(Path(place), points) for place, points in (also_on or {}).items()),
        None if must_pass is None else Path(must_pass),
    )
    folder = None if data_dir is None else str(data_dir)
    return register_best(experiment, data_fingerprint, folder, task, chosen, dry_run, demands)
