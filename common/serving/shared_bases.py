"""One copy of a base in memory for all models of a server that are adapters of it.

A server that opens further models when they are asked for (`on_demand`) shares bases. Others do not: an adapter that is alone
is merged into its base, which answers faster.
"""

import hashlib
import os
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from ..models import bundles, families, global_attention
from ..models.bundles import BundleInfo, SharedBase, load_shared_base, read_bundle
from .server_process import SERVER, in_server

MODELS = "SERVING_MODELS"
"""The setting that lists the further models of a server."""

PLACE = "suite_shared_bases"
"""Where the server's module holds its bases."""

CODE = hashlib.sha256(
    b"\0".join(Path(str(each.__file__)).read_bytes() for each in (bundles, families, global_attention))
).hexdigest()
"""Of what opens a base. Every stored model brings its own copy of this code; it uses no base that other code opened."""

_OPENING = threading.Lock()


def shared_base(base: Path, info: BundleInfo) -> SharedBase:
    """The base that adapters like `info`'s need: in a server that shares bases the one in memory, else from its folder."""
    if not _shares() or not info.base_fingerprint:
        return load_shared_base(base, info)
    key = (info.base_fingerprint, info.head, CODE)
    # A base goes with the last model that uses it.
    held: Any = vars(sys.modules.get(SERVER, sys.modules[__name__])).setdefault(
        PLACE, weakref.WeakValueDictionary()
    )
    with _OPENING:
        found = held.get(key)
        if found is None:
            found = held[key] = load_shared_base(base, info)
        return found


def base_of(bundle: Path, base: Path | None) -> SharedBase | None:
    """The base in memory of a saved model; None where it opens its own: outside of a server that shares bases, and where it
    has weights of its own throughout. base: where the base lies if the bundle does not hold it."""
    if not _shares() or not (bundle / "adapter").is_dir():
        return None
    info, inside = read_bundle(bundle), bundle / "base"
    place = inside if inside.is_dir() else base
    return shared_base(place, info) if place is not None and info.runtime == "torch" else None


def _shares() -> bool:
    return in_server() and bool(os.environ.get(MODELS))
