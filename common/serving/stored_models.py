"""Stored models by whatever people name them by: a URI, a run's id, or a folder. Served models do not need it."""

import re
from pathlib import Path

from mlflow.entities import LoggedModel

from ..models.bundles import BUNDLE
from ..tracking import store
from . import stored_code

_RUN_ID = re.compile(r"[0-9a-f]{32}")


def uri_of(name: str) -> str | None:
    """The URI of a model that is named by it, or by the id of the run that logged it; None for any other name."""
    if _RUN_ID.fullmatch(name) and not Path(name).is_dir():
        return f"runs:/{name}/model"
    return name if ":/" in name else None


def copied(uri: str, folder: Path, called: str = "") -> tuple[LoggedModel, Path]:
    """(the logged model of a URI as the store has it, its copy in the folder, verified and with its base inside).

    called: its name in messages; default: the URI. UserError as `stored_code.verified`; store.ERRORS where the store refuses.
    """
    store.configure()
    logged = stored_code.logged_model_of(uri)
    # By its id: an alias may move meanwhile.
    return logged, stored_code.verified(f"models:/{logged.model_id}", folder, called or uri)


def in_folder(folder: Path) -> Path | None:
    """The saved model, or the adapters of several, in a folder such as one that `mlflow artifacts download` wrote; None where
    there is none."""
    for place in (folder, folder / "artifacts" / "bundle"):
        if (place / BUNDLE).is_file() or (place / "adapters").is_dir():
            return place
    return None
