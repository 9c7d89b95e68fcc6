"""What meets a request before MLflow's application does: ids, keys, the log, and whether the server is ready."""

import asyncio
import hashlib
import json
import os
import signal

import pytest
from fastapi import FastAPI, Request

from common.errors import UserError
from common.serving import server_application as application
from common.serving.observed import Observed, Seen
from common.serving.server_application import Front, request_id


class Answering:
    version, columns, settled, begun, follows = "7", ["question", "context"], True, False, False

    def begin(self, observed):
        self.begun = True


async def echo(scope, receive, send):
    """An application that answers with the body that it got."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def front(monkeypatch):
    """Makes a Front in an environment."""
    own = Observed(None)
    monkeypatch.setattr(application, "observed", lambda: own)

    def make(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(f"SERVING_{name}", str(value))
        return Front(Answering())

    return make


def ask(front, app=echo, path="/invocations", body=b"{}", root="", **headers):
    """(status, headers, body) of a request."""
    given = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": root,
        "headers": [(b"content-length", str(len(body)).encode()), *given],
    }
    got = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        got.append(message)

    asyncio.run(front.answer(app, scope, receive, send))
    start, *rest = got
    return (
        start["status"],
        {n.decode(): v.decode() for n, v in start["headers"]},
        b"".join(m["body"] for m in rest),
    )


@pytest.mark.parametrize("given", ["a", "7d2f-90", "x" * 128, "trace/1:2"])
def test_the_id_of_a_request_is_kept(given, front):
    assert ask(front(), x_request_id=given)[1]["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 129, "a\r\nset-cookie: b", "é"])
def test_others_get_a_new_one(given):
    found = {request_id((given or "").encode("latin-1")) for _ in range(2)}
    assert len(found) == 2 and given not in found and all(len(each) == 32 for each in found)


def test_every_response_says_which_version_answers(front):
    made = front()
    assert ask(made)[1]["x-model-version"] == "7"

    async def other(scope, receive, send):
        # As `guarded` does, when the request gets its model.
        made.observed.current.get().version = "6"
        await echo(scope, receive, send)

    assert ask(made, other)[1]["x-model-version"] == "6"
    status, headers, text = ask(made, content_length=str(2**40))
    assert status == 413 and headers["x-model-version"] == "7" and b"at most" in text


def test_the_log_has_a_line_for_each_request_and_nothing_of_its_text(front, tmp_path):
    log = tmp_path / "access.log"
    made = front(ACCESS_LOG=log)

    async def other(scope, receive, send):
        made.observed.answered([{"answer": "a secret"}] * 3)
        await echo(scope, receive, send)

    ask(made, other, body=b'{"inputs": "a secret"}', x_request_id="id-1")
    log.rename(tmp_path / "moved.log")
    ask(made, path="/nowhere", content_length=str(2**40))
    first, second = (json.loads(file.read_text()) for file in (tmp_path / "moved.log", log))
    assert list(first) == ["time", "id", "method", "path", "status", "ms", "rows", "version"]
    assert (first["id"], first["path"], first["status"], first["rows"], first["version"]) == (
        "id-1", "/invocations", 200, 3, "7",
    )  # fmt: skip
    assert first["ms"] >= 0 and first["time"].endswith("+00:00")
    assert (second["path"], second["status"], second["rows"]) == ("/nowhere", 413, 0)
    assert "secret" not in (tmp_path / "moved.log").read_text()


def leaving(front, app, *before):
    """A client sends these parts of a body, and leaves."""
    events = [{"type": "http.request", "body": part, "more_body": True} for part in before]
    events.append({"type": "http.disconnect"})
    got = []

    async def receive():
        return events.pop(0) if len(events) > 1 else events[0]

    async def send(message):
        got.append(message)

    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": [], "query_string": b""}
    asyncio.run(front.answer(app, scope, receive, send))


def mlflows_kind_of_application():
    """As MLflow's: a middleware around the route, the whole body, then a computation in another thread."""
    app = FastAPI()

    @app.middleware("http")
    async def within(request, call_next):
        return await asyncio.wait_for(call_next(request), 30)

    @app.post("/invocations")
    async def answered(request: Request):
        return await asyncio.to_thread(len, await request.body())

    return app


def test_a_client_that_leaves_is_noted_and_so_is_a_failure(front, tmp_path):
    made = front(ACCESS_LOG=tmp_path / "log")

    async def broken(scope, receive, send):
        raise ZeroDivisionError

    async def gone_meanwhile(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    leaving(made, mlflows_kind_of_application(), b"the first part")
    leaving(made, gone_meanwhile, b"all")
    with pytest.raises(ZeroDivisionError):
        ask(made, broken)
    assert ask(made, path="/ping")[0] == 200
    lines = [json.loads(line)["status"] for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == [499, 499, 500, 200]


def test_behind_a_proxys_path_the_same_holds(front, tmp_path):
    (tmp_path / "keys").write_text(f"ali {hashlib.sha256(b'sesame').hexdigest()} 1\n")
    made = front(API_KEYS=tmp_path / "keys", ACCESS_LOG=tmp_path / "log")
    key = {"authorization": "Bearer sesame"}
    assert ask(made, path="/qa/ready", root="/qa")[0] == 200
    assert [ask(made, path="/qa/invocations", root="/qa", **key)[0] for _ in range(2)] == [200, 429]
    lines = [json.loads(line)["path"] for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == ["/ready", "/invocations", "/invocations"]


def test_a_log_that_cannot_be_written_is_refused(front, tmp_path):
    with pytest.raises(UserError, match="SERVING_ACCESS_LOG .*no-folder.* cannot be written"):
        front(ACCESS_LOG=tmp_path / "no-folder" / "log")


@pytest.mark.parametrize("seconds", ["-1", "soon", "nan", "1e9"])
def test_a_drain_that_is_no_number_of_seconds_is_refused(seconds, front):
    with pytest.raises(UserError, match="SERVING_DRAIN_SECONDS is"):
        front(DRAIN_SECONDS=seconds)


def test_keys_are_asked_for_and_limited_by_each_request(front, tmp_path):
    digest = hashlib.sha256(b"sesame").hexdigest()
    (tmp_path / "keys").write_text(f"ali {digest} 2\n")
    made = front(API_KEYS=tmp_path / "keys", ACCESS_LOG=tmp_path / "log")
    status, headers, text = ask(made)
    assert status == 401 and "Bearer" in headers["www-authenticate"] and text.startswith(b"Send a key")
    assert headers["x-request-id"] and ask(made, path="/metrics")[0] == 401
    assert [ask(made, path=path)[0] for path in application.OPEN] == [200] * 3
    key = {"authorization": "Bearer sesame"}
    assert [ask(made, path="/metrics", **key)[0] for _ in range(5)] == [200] * 5
    statuses = [ask(made, **key)[0] for _ in range(3)]
    assert statuses == [200, 200, 429] and int(ask(made, **key)[1]["retry-after"]) in range(1, 31)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines[-3]["key"] == "ali" and "key" not in lines[0]
    assert "sesame" not in (tmp_path / "log").read_text()


def started(front, app, then=None):
    """Run a server's start with this application; gives the statuses of /ready before, and after it answered."""

    async def run():
        front.begin(app)
        before = (await front.ready_or_not()).status_code
        await front._warming
        after = (await front.ready_or_not()).status_code
        return before, after, await then() if then else None

    return asyncio.run(run())


def test_a_server_is_ready_once_it_has_answered_itself(front):
    made, asked = front(), []

    async def app(scope, receive, send):
        asked.append((scope["path"], json.loads((await receive())["body"])))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    assert started(made, app)[:2] == (503, 200) and made.answering.begun
    ((path, body),) = asked
    assert path == "/invocations" and set(body["dataframe_records"][0]) == {"question", "context"}


def test_a_server_that_cannot_answer_itself_is_never_ready(front, caplog):
    async def refusing(scope, receive, send):
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"no such column"})

    async def broken(scope, receive, send):
        raise ZeroDivisionError

    for app, reason in ((refusing, "no such column"), (broken, "ZeroDivisionError")):
        made = front()
        assert started(made, app)[:2] == (503, 503) and not made.answering.begun
        assert reason in caplog.text


def test_a_server_that_follows_is_ready_once_it_has_asked_the_store(front):
    made = front()
    made.answering.settled = False
    assert started(made, echo)[:2] == (503, 503)
    made.answering.settled = True
    assert asyncio.run(made.ready_or_not()).status_code == 200


def test_after_sigterm_it_goes_on_for_a_while_and_says_so(front):
    made, stopped = front(DRAIN_SECONDS="3"), []
    kept = signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))

    async def then():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.02)
        during = (await made.ready_or_not()).status_code, list(stopped)
        for _ in range(3000):
            if stopped:
                break
            await asyncio.sleep(0.01)
        return during, stopped

    try:
        during, after = started(made, echo, then)[2]
    finally:
        signal.signal(signal.SIGTERM, kept)
    assert during == (503, []) and after == [True]


def test_what_waits_is_written_before_the_server_ends(front, tmp_path):
    made, sent = front(OBSERVATIONS=tmp_path), []
    for _ in range(50):
        seen = Seen("id", "3", records=[{"text": "a"}], answers=[{"label": "b"}])
        made.observations.put(seen)

    async def send(message):
        sent.append((message["type"], sum(len(f.read_text().splitlines()) for f in tmp_path.iterdir())))

    asyncio.run(made.ending(send)({"type": "lifespan.shutdown.complete"}))
    assert sent == [("lifespan.shutdown.complete", 50)]


def test_counters_without_prometheus_client(front):
    assert asyncio.run(front().counters()).status_code == 501


def test_a_client_that_sends_slowly_is_not_waited_for(front, monkeypatch):
    monkeypatch.setattr(application, "PATIENCE", 0.05)
    made = front()

    async def run():
        got = []

        async def receive():
            await asyncio.Event().wait()

        async def send(message):
            got.append(message)

        scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": []}
        await made.answer(echo, scope, receive, send)
        return got[0]["status"]

    assert asyncio.run(run()) == 408
