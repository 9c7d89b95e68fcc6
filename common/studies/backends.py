"""The backends that train the rows of a study: this process, one row after another, or Ray Tune."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from .declaration import Study

BACKENDS = LOCAL, RAY = ("local", "ray")


def check(study: "Study", backend: str, address: str | None = None, only_show: bool = False) -> None:
    """Raise UserError for anything that the backend cannot do.

    address: the Ray cluster's, if one was given. only_show: nothing is trained.
    """
    if backend != RAY:
        if address:
            raise UserError("--address is for --backend ray.")
        if study.asks_for_ray and not only_show:
            raise UserError(
                f"{study.file} has a `{study.asks_for_ray}`, which needs --backend ray; one machine is enough."
            )
        return
    missing = [name for name in ("ray", "optuna") if not find_spec(name)]
    if missing:
        raise UserError(
            f"--backend ray needs {' and '.join(missing)}, which is not installed: pip install -r requirements-ray.txt"
        )
