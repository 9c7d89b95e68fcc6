"""A webhook of MLflow has a server look at its alias; what is not signed with the secret, or too old, does not."""

import asyncio
import time

import fastapi
import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from common.errors import UserError
from common.serving import server_application as application
from common.serving import webhook
from common.serving.observed import Observed

SECRET = "a secret of both"
BODY = '{"entity": "model_version_alias", "data": {"version": "9"}}'


def headers(secret=SECRET, sent=None, delivery="d-1", body=BODY):
    """As MLflow signs a delivery."""
    sent = str(int(time.time()) if sent is None else sent)
    return {
        b"x-mlflow-delivery-id": delivery.encode(),
        b"x-mlflow-timestamp": sent.encode(),
        b"x-mlflow-signature": _generate_hmac_signature(secret, delivery, sent, body).encode(),
    }


def test_mlflows_own_signature_is_taken():
    assert webhook.is_signed(SECRET, headers(), BODY.encode())


@pytest.mark.parametrize(
    "change",
    [
        {b"x-mlflow-signature": b""},
        {b"x-mlflow-signature": b"v1,AAAA"},
        {b"x-mlflow-signature": b"\xff\xfe"},
        {b"x-mlflow-delivery-id": b"d-2"},
        {b"x-mlflow-timestamp": b""},
        {b"x-mlflow-timestamp": b"1e9"},
        {b"x-mlflow-timestamp": b"-5"},
        {b"x-mlflow-timestamp": b"9" * 5000},
        {b"x-mlflow-timestamp": str(int(time.time()) - 1).encode()},
    ],
)
def test_what_was_changed_is_not(change):
    assert not webhook.is_signed(SECRET, headers() | change, BODY.encode())


def test_neither_is_another_body_another_secret_or_an_old_delivery():
    assert not webhook.is_signed(SECRET, headers(), BODY.encode() + b" ")
    assert not webhook.is_signed(SECRET, headers("another secret"), BODY.encode())
    for sent, now, taken in (
        (1000, 1300, True),
        (1000, 1301, False),
        (1300, 1000, True),
        (1301, 1000, False),
    ):
        assert webhook.is_signed(SECRET, headers(sent=sent), BODY.encode(), now) is taken


class Answering:
    version, columns, settled, follows = "7", ["text"], True, True

    def __init__(self):
        self.looks = 0

    def look_now(self):
        self.looks += 1


@pytest.fixture
def server(monkeypatch):
    """Makes (application of MLflow's server, Answering) in an environment."""
    monkeypatch.setattr(application, "observed", lambda: Observed(None))
    monkeypatch.setattr(fastapi, "FastAPI", fastapi.FastAPI)

    def make(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        answering = Answering()
        application.put_application(answering)
        return fastapi.FastAPI(), answering

    return make


def status(app, given, body=BODY, method="POST"):
    """The status of a request for /reload."""
    scope = {
        "type": "http", "method": method, "path": "/reload", "raw_path": b"/reload", "query_string": b"", "root_path": "",
        "scheme": "http", "http_version": "1.1", "headers": [(b"content-length", str(len(body)).encode()), *given.items()],
    }  # fmt: skip
    got = []

    async def receive():
        return {"type": "http.request", "body": body.encode(), "more_body": False}

    async def send(message):
        got.append(message)

    asyncio.run(app(scope, receive, send))
    return got[0]["status"]


def test_a_signed_one_lets_the_server_look_and_needs_no_key(server, tmp_path):
    (tmp_path / "keys").write_text(f"ali {'0' * 64}\n")
    app, answering = server(SERVING_WEBHOOK_SECRET=SECRET, SERVING_API_KEYS=tmp_path / "keys")
    assert status(app, headers()) == 202 and answering.looks == 1
    large = "x" * (webhook.LONGEST + 1)
    refused = [(headers("wrong"), BODY), ({}, BODY), (headers(sent=1), BODY), (headers(body=large), large)]
    for given, body in refused:
        assert status(app, given, body) == 401
    assert status(app, headers(), method="GET") == 405 and answering.looks == 1


def test_without_a_secret_there_is_no_such_path(server):
    for environment in ({}, {"SERVING_WEBHOOK_SECRET": ""}):
        app, answering = server(**environment)
        assert status(app, headers()) == status(app, headers("")) == 404 and not answering.looks


def test_a_secret_without_an_alias_is_refused(server, monkeypatch):
    monkeypatch.setattr(Answering, "follows", False)
    with pytest.raises(
        UserError, match="SERVING_WEBHOOK_SECRET is set, but neither SERVING_FOLLOW nor SERVING_MODELS"
    ):
        server(SERVING_WEBHOOK_SECRET=SECRET)
