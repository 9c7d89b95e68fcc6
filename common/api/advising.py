"""`advise`: which technique to take for data of one's own, by a halving over all of them."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import read_yaml
from ..paths import ROOT
from ..studies.backends import LOCAL
from .technique_scripts import technique_scripts

if TYPE_CHECKING:
    from ..studies.advisor import Found, Wishes

REQUESTS = 20
"""Validation examples that are sent to a stored model, one at a time, to measure its latency."""


def choices() -> list[str]:
    """The keys of the techniques that can be tried: those whose defaults make a technique."""
    return [key for key, (kind, _) in technique_scripts().items() if not kind.needs]


def wishes(
    data_dir: str, techniques: Sequence[str] = (), fields_file: Path | None = None, **others: Any
) -> "Wishes":
    """What the user asks for; UserError names a technique that does not exist, or what is wrong with the file.

    techniques: keys; none stands for all `choices`. fields_file: YAML with further fields of every
    run. others: the other fields of `advisor.Wishes`.
    """
    from ..studies.advisor import Wishes

    known = choices()
    for key in techniques:
        if key not in known:
            raise UserError(
                f"--techniques {key}: there is no such technique; choose from {', '.join(known)}."
            )
    if fields_file is not None:
        others |= {"fields": _fields(fields_file), "fields_file": str(fields_file)}
    return Wishes(data_dir, tuple(dict.fromkeys(techniques or known)), bool(techniques), **others)


def _fields(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{file} must hold 'field: value' lines.")
    return content


def advise(
    asked: "Wishes",
    output_dir: Path = ROOT / "results",
    backend: str = LOCAL,
    address: str | None = None,
    retry_failed: bool = False,
) -> "Found":
    """Train the rungs that are left and advise. UserError if nothing can be chosen.

    output_dir: where the folder of the rungs is made. backend, address, retry_failed: as `studies.launch.run` takes them.
    """
    from ..data.ensure import ensure
    from ..studies.advisor import Advisor
    from ..studies.row_starter import Starter
    from ..tasks.table import task_of
    from ..tracking import store

    store.configure()
    scripts = technique_scripts()
    task = task_of(asked.task)
    splits, record = ensure(Path(asked.data_dir), task.data)
    requests = [
        task.request(splits["validation"][i]) for i in range(min(REQUESTS, len(splits["validation"])))
    ]

    def measure(run_id: str) -> tuple[float | None, float | None]:
        return measured(f"runs:/{run_id}/model", requests)

    classes = {key: kind for key, (kind, _) in scripts.items()}
    files = {key: file for key, (_, file) in scripts.items()}
    # The rows of all rungs are forked from one process.
    with Starter() as starter:
        return Advisor(
            asked,
            classes,
            files,
            output_dir,
            measure,
            record.fingerprint,
            backend,
            address,
            retry_failed,
            starter,
        ).run()


def measured(uri: str, requests: Sequence[Mapping[str, str]]) -> tuple[float | None, float | None]:
    """(median latency of single requests to a stored model in ms, MiB of the whole model that is served); None for what cannot
    be measured.

    The model is asked in a process of its own, as its server asks it. An adapter that is merged into its base when it is
    loaded adds nothing to the whole.
    """
    import numpy as np

    from ..models import bundles
    from ..registry import checking
    from ..scratch import scratch
    from ..serving import stored_code
    from ..training.results import weights_mib

    latency, whole = None, 0.0
    with contextlib.suppress(checking.Unloadable):
        latency = float(np.median(checking.ask(uri, requests)["latencies"]))
    with scratch() as folder, contextlib.suppress(UserError):
        bundle = stored_code.verified(uri, folder) / "artifacts" / "bundle"
        base, adapter = weights_mib(bundle / "base"), weights_mib(bundle / "adapter")
        whole = base + (0.0 if adapter and bundles.merges(bundle) else adapter)
    return latency, whole or None
