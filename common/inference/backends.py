"""Where blocks are answered: in this process, or by the workers of a Ray cluster."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import NotHere, UserError
from .models import Model
from .predicting import Backend, Backends, here


def backends_of(name: str, *, address: str | None = None, workers: int | None = None) -> Backends:
    """What `predict` takes as `backends`, by its name: "local" (this process) or "ray".

    address, workers: of a Ray cluster. NotHere where Ray is not installed.
    """
    if name == "local":
        if address or workers:
            raise UserError("--address and --workers are for --backend ray.")
        return here
    try:
        from . import ray_backend
    except ImportError:
        raise NotHere("--backend ray needs Ray: pip install -r requirements-ray.txt.") from None

    @contextmanager
    def on_ray(model: Model, asked: Mapping[str, Any]) -> Iterator[Backend]:
        name = everywhere(model.name)
        with ray_backend.connected(address, name):
            yield ray_backend.Pool(
                name, model.origin.content, asked, workers, pairs="text_pair" in model.asked
            )

    return on_ray


def everywhere(name: str) -> str:
    """The name of a model as processes know it that work in other folders: of a folder, its whole path."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if ":/" not in name and folder.is_dir() else name
