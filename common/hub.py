"""Whether the model and data hub answers, found out in seconds instead of minutes."""

import math
import os
import socket
import time
from urllib.parse import SplitResult, urlsplit


def hub_answers(seconds: float = 3.0) -> bool:
    """Whether the hub accepts a connection within `seconds`; False when the user has set HF_HUB_OFFLINE.

    A hub that did not answer is not asked again for a minute: a study has many runs.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    if time.monotonic() - _silent_since.get(address, -math.inf) < 60:
        return False
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        with socket.create_connection((address.hostname, port), timeout=seconds):
            return True
    except OSError:
        _silent_since[address] = time.monotonic()
        return False


_silent_since: dict[SplitResult, float] = {}
