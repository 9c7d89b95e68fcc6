"""Whether a request is a webhook of MLflow that was signed with a secret, as `mlflow.webhooks.delivery` signs.

The signature is "v1," and the base64 of an HMAC-SHA256 over "DELIVERY_ID.TIMESTAMP.BODY" (https://www.standardwebhooks.com).
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping

SECRET = "SERVING_WEBHOOK_SECRET"

PATH = "/reload"

TOLERANCE = 300
"""Seconds between the time that a delivery states and now; MLflow states it once for all attempts of a delivery."""

LONGEST = 2**16
"""Bytes of a body; those of MLflow have a few hundred."""


def is_signed(secret: str, headers: Mapping[bytes, bytes], body: bytes, now: float | None = None) -> bool:
    """Whether a body was signed with the secret within the last TOLERANCE seconds.

    headers: of the request, names in lower case. now: in seconds since 1970; default: the clock's.
    """
    delivery = headers.get(b"x-mlflow-delivery-id", b"")
    sent = headers.get(b"x-mlflow-timestamp", b"")
    given = headers.get(b"x-mlflow-signature", b"")
    # Other digits than ASCII's would be read as a number too.
    if not sent.isdigit() or len(sent) > 12:
        return False
    if abs((time.time() if now is None else now) - int(sent)) > TOLERANCE:
        return False
    digest = hmac.new(secret.encode(), b".".join((delivery, sent, body)), hashlib.sha256).digest()
    return hmac.compare_digest(given, b"v1," + base64.b64encode(digest))
