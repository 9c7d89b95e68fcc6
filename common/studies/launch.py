"""A study from its declaration to its report."""

from collections.abc import Mapping
from pathlib import Path

from ..tracking import store
from . import backends
from .clock import Clock
from .declaration import Study
from .folder import Folder
from .results import overview
from .row_starter import Starter
from .runner import Runner
from .status import Entry, Status


def show(study: Study, output_dir: Path) -> str:
    """The rows, their status and the time that is left; nothing is trained."""
    status = _checked(study, output_dir, only_show=True)
    entries = status.survey()
    return overview(status, entries, Clock(status).left(entries))


def run(
    study: Study,
    output_dir: Path,
    scripts: Mapping[str, Path],
    backend: str = backends.LOCAL,
    address: str | None = None,
    retry_failed: bool = False,
    starter: Starter | None = None,
) -> str:
    """Train the rows that are left and write the report; the progress is printed.

    output_dir: where the study's folder is made. scripts: technique key → the script that trains it. backend: one of
    `backends.BACKENDS`. address: the Ray cluster's; None starts Ray on this machine. starter: of the local backend; default: one
    of this call's own. Returns the rows that failed, each with its reason; "" if none did.
    """
    status = _checked(study, output_dir)
    with status.folder.held():
        # It may have changed while this process waited.
        status.folder.load()
        if backend == backends.RAY:
            from .ray_runner import RayRunner

            return RayRunner(status, scripts, retry_failed, address).run()
        return Runner(status, scripts, retry_failed, starter).run()


def survey(study: Study, output_dir: Path) -> tuple[Status, list[Entry]]:
    """The study's status and its rows, as the last `run` left them."""
    status = _checked(study, output_dir)
    return status, status.survey()


def _checked(study: Study, output_dir: Path, only_show: bool = False) -> Status:
    """The study's status, after every possible row was checked."""
    store.configure()
    status = Status(study, Folder(output_dir / study.name), only_show)
    status.check()
    return status
