"""Whether the model and data hub can be reached, found out in seconds instead of minutes."""

import os
import socket
from urllib.parse import urlsplit


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
