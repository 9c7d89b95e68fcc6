"""The model and data hub: whether it can be reached, found out in seconds instead of minutes, and data from it."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from .errors import UserError


def hub_answers(seconds: float = 3.0) -> bool:
    """Whether the hub accepts a connection within `seconds`; False when the user has set HF_HUB_OFFLINE."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        with socket.create_connection((address.hostname, port), timeout=seconds):
            return True
    except OSError:
        return False


def download_parquet(
    repository: str, splits: Sequence[str], *, online: bool, instead: str
) -> dict[str, list[Path]]:
    """The parquet files of each split of a data set, from the cache or the hub; UserError if they cannot be had.

    instead: what the user can do then.
    """
    from huggingface_hub import snapshot_download

    try:
        # By repository, never by load_dataset("squad"), which would take a folder of that name in the working directory.
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            allow_patterns=[f"*{split}-*.parquet" for split in splits],
            etag_timeout=5,
            local_files_only=not online,
        )
    except Exception as error:
        reason = (
            type(error).__name__ if online else "the hub cannot be reached and the cache does not hold it"
        )
        raise UserError(f"The hub's {repository} cannot be had: {reason}. Go online, or {instead}.") from None
    files = {split: sorted(Path(folder).rglob(f"{split}-*.parquet")) for split in splits}
    for split, names in files.items():
        if not names:
            raise UserError(
                f"The hub's {repository} has no {split} file in {folder}; remove that folder and try again."
            )
    return files
