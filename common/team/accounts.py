"""The accounts of a team's server: who may log in, and what each may do with the runs and models of others."""

import base64
import json
import secrets
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any

from ..errors import UserError
from .server import ADMIN, Team

ROLES = {"reader": "READ", "writer": "EDIT"}
"""What an account may do with the experiments and models of others; it always owns what it makes."""

_GRANTED = ("experiment", "registered_model")
_WORKSPACE = "default"


def add(team: Team, name: str, role: str) -> str:
    """Make an account; returns its password. role: a key of ROLES, or "admin"."""
    password = secrets.token_urlsafe(18)
    call(team, "POST", "2.0", "users/create", username=name, password=password)
    if role == ADMIN:
        call(team, "PATCH", "2.0", "users/update-admin", username=name, is_admin=True)
    else:
        call(team, "POST", "3.0", "roles/assign", username=name, role_id=_role(team, role))
    return password


def reset_password(team: Team, name: str) -> str:
    """Set a new password for an account, and return it."""
    password = secrets.token_urlsafe(18)
    call(team, "PATCH", "2.0", "users/update-password", username=name, password=password)
    if name == ADMIN:
        team.save(replace(team.settings, admin_password=password))
    return password


def remove(team: Team, name: str) -> None:
    """Remove an account; its runs and models stay."""
    if name == ADMIN:
        raise UserError(f"{ADMIN} is the account that this script itself uses; it cannot be removed.")
    call(team, "DELETE", "2.0", "users/delete", username=name)


def _role(team: Team, name: str) -> int:
    """The id of a role on the server, after the role and its grants are made if they are missing."""
    roles = call(team, "GET", "3.0", f"roles/list?workspace={_WORKSPACE}")["roles"]
    id_ = next((role["id"] for role in roles if role["name"] == name), None)
    if id_ is None:
        id_ = call(team, "POST", "3.0", "roles/create", workspace=_WORKSPACE, name=name)["role"]["id"]
    has = call(team, "GET", "3.0", f"roles/permissions/list?role_id={id_}")["role_permissions"]
    for kind in set(_GRANTED) - {grant["resource_type"] for grant in has}:
        grant = {"resource_type": kind, "resource_pattern": "*", "permission": ROLES[name]}
        call(team, "POST", "3.0", "roles/permissions/add", role_id=id_, **grant)
    return id_


def call(team: Team, method: str, api: str, path: str, **body: Any) -> dict[str, Any]:
    """Call the server's own API as its administrator."""
    settings = team.settings
    secret = base64.b64encode(f"{ADMIN}:{settings.admin_password}".encode()).decode()
    request = urllib.request.Request(
        f"{settings.address}/api/{api}/mlflow/{path}",
        json.dumps(body).encode() if body else None,
        {"Authorization": f"Basic {secret}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "{}")
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        try:
            text = json.loads(text)["message"]
        except (ValueError, KeyError):
            pass
        # MLflow appends its database's error, which shows the statement with its values.
        text = text.partition(" Error: ")[0].partition("\n")[0]
        raise UserError(f"The server refuses {path.split('?')[0]} ({error.code}): {text[:300]}") from None
    except OSError as error:
        raise UserError(f"{settings.address} does not answer ({error}): start the server (up).") from None
