"""What protects the page: who may ask, how much may be sent, and what is said of every error."""

import ipaddress
import re
from collections.abc import Collection
from typing import Any

from flask import Response, abort, jsonify, render_template, request
from werkzeug.exceptions import HTTPException, SecurityError

from ..api_keys import Denied, Keys

MAX_CONTEXT = 50_000
"""Characters; a served model takes more, but too slowly for a page."""

MAX_BODY = 1_000_000
"""Bytes: enough for the longest texts as JSON or as a form, where a character may take twelve."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

LOCAL = ("127.0.0.1", "localhost", "[::1]")


class Fault(Exception):
    """A fault of a question, with the field that it is in."""

    def __init__(self, message: str, field: str | None = None, status: int = 400):
        super().__init__(message)
        self.message, self.field, self.status = message, field, status


def checked_text(name: str, text: object, limit: int, label: str = "", *, may_be_empty: bool = False) -> str:
    """The text of a field, of at most `limit` characters; raises Fault. label: what messages call it."""
    label = label or f"The {name}"
    if not isinstance(text, str):
        raise Fault(f"{label} must be a string.", name)
    if len(text) > limit:
        raise Fault(f"{label} has {len(text):,} characters; at most {limit:,} are taken.", name)
    if re.search(r"[\ud800-\udfff]", text):
        raise Fault(f"{label} holds a lone surrogate, which is no character.", name)
    if not may_be_empty and not text.strip():
        raise Fault(f"{label} is empty.", name)
    return text


def host_name(name: str) -> str:
    """A host's name as browsers write it: IPv6 addresses within brackets and in their short form."""
    try:
        return f"[{ipaddress.IPv6Address(name.strip('[]')).compressed}]"
    except ValueError:
        return name.lower()


def refuse_other_names(known: Collection[str]) -> None:
    """SecurityError where a request calls this machine by another name than those that are known."""
    # werkzeug's own check takes no IPv6 address.
    name = re.sub(r":\d*$", "", request.headers.get("Host", ""))
    if host_name(name) not in known:
        raise SecurityError(f"Host {name!r} is not trusted.")


def refuse_other_sites() -> None:
    """403 for what another site's page sends."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    # Programs send neither; a browser that does not know the first sends the second.
    foreign = origin is not None and origin.partition("://")[2].lower() != request.host.lower()
    if request.method == "POST" and (site not in ("same-origin", "none") or foreign):
        abort(403, "Questions from other sites are not answered.")


def refuse_without_key(keys: Keys) -> Response | None:
    """401 for a request without a key, 429 for one too many. A browser asks its user, as for a password."""
    found = keys.asked(request.headers.get("Authorization"), counts=request.method == "POST")
    if not isinstance(found, Denied):
        return None
    response = (
        jsonify(error=found.reason, field=None)
        if _by_script()
        else Response(found.reason, mimetype="text/plain")
    )
    response.status_code = found.status
    response.headers.update(found.headers)
    return response


def _by_script() -> bool:
    return request.path == "/answer" or request.is_json


def protect(response: Response) -> Response:
    """The response with HEADERS."""
    response.headers.update(HEADERS)
    return response


def explain(error: Exception) -> Response | tuple[Response | str, int]:
    """Every error in words: as JSON for the script, else on the page."""
    if isinstance(error, SecurityError):
        text = "This page does not answer under this name. Open it under the address that was printed at its start.\n"
        return Response(text, 400, mimetype="text/plain")
    fault = _as_fault(error)
    if _by_script():
        return jsonify(error=fault.message, field=fault.field), fault.status
    return render_template("fault.html", fault=fault), fault.status


def _as_fault(error: Exception) -> Fault:
    if isinstance(error, Fault):
        return error
    if not isinstance(error, HTTPException):
        return Fault(str(error), status=503)
    reasons = {
        413: f"That is more than the page takes: at most {MAX_BODY:,} bytes.",
        500: "The page failed at this question; the terminal that it was started in shows why.",
    }
    status = error.code or 500
    return Fault(reasons.get(status, error.description or ""), status=status)


def read_json() -> dict[str, Any]:
    """The body of the script's request; raises Fault."""
    if not request.is_json:
        raise Fault("Send application/json.", status=415)
    try:
        body = request.get_json()
    except RecursionError:
        raise Fault("The JSON is nested too deep.") from None
    if not isinstance(body, dict):
        raise Fault("Send an object with the fields of the form.")
    return body
