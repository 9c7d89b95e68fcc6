"""Where blocks are answered: in this process, or by the workers of a Ray cluster."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import NotHere, UserError
from .models import Model
from .predicting import Backend


@contextlib.contextmanager
def backend(
    name: str,
    model: Model,
    asked: Mapping[str, Any],
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Iterator[Backend | None]:
    """The backend of a name, "local" (None: this process) or "ray", for as long as the block lasts.

    asked: the parameters of each request. address, workers: of a Ray cluster. NotHere where Ray is not installed.
    """
    if name == "local":
        if address or workers:
            raise UserError("--address and --workers are for --backend ray.")
        yield None
        return
    try:
        from . import ray_backend
    except ImportError:
        raise NotHere("--backend ray needs Ray: pip install -r requirements-ray.txt.") from None
    with ray_backend.connected(address, model.name):
        yield ray_backend.Pool(model.name, model.origin.content, asked, workers)
