"""What stands before MLflow's application in its server: bounded bodies, keys, a log, counters, and whether it is ready.

The environment sets it up, for every kind of model alike (docs/OPERATIONS.md):

SERVING_ACCESS_LOG: a file, or - for standard output, that gets one JSON object for each request, without any text of it.
SERVING_API_KEYS: a file of keys (`api_keys`); without it everybody may ask.
SERVING_DRAIN_SECONDS: how long after SIGTERM requests are still taken, while /ready says 503.
SERVING_FOLLOW: the alias whose version answers (`following`). SERVING_MODELS: further models that a request may name
(`on_demand`).
SERVING_WEBHOOK_SECRET: with it MLflow's webhooks have a server look at once at the alias that it follows, as SIGHUP does.
SERVING_TRACE: the share of the requests that leave a trace in MLflow (`tracing`).
SERVING_OBSERVATIONS: a folder that gets a line without text for each row that was answered (`observations`).
"""

import asyncio
import json
import logging
import logging.handlers
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..api_keys import Denied, Keys
from ..errors import UserError
from . import webhook
from .following import FOLLOW, WARM_UP, seconds_of
from .observations import observations
from .observed import Seen, observed
from .on_demand import from_environment
from .server_process import workers
from .shared_bases import MODELS
from .tracing import tracing

if TYPE_CHECKING:
    from .following import Answering

ACCESS_LOG, API_KEYS, DRAIN = "SERVING_ACCESS_LOG", "SERVING_API_KEYS", "SERVING_DRAIN_SECONDS"

LARGEST_BODY = 16 * 2**20
"""Bytes of a request; larger ones get 413 before they are parsed."""

MOST_DISCARDED = 4 * LARGEST_BODY
"""Bytes of a body that is too large that are read and discarded, so that its sender can read the answer."""

PATIENCE = 60
"""Seconds in which a body must arrive that is too long, or does not state its length."""

AT_ONCE = 64
"""Requests that are read, computed and written at the same time; later ones wait for a place."""

FINISH = 2.0
"""Seconds in which traces and observations are written when the server ends."""

ASK = "/invocations"

OPEN = ("/ping", "/health", "/ready")
"""Paths that need no key."""

Message = MutableMapping[str, Any]
"""A scope or an event of ASGI."""

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_log = logging.getLogger(__name__)


def put_application(answering: "Answering") -> None:
    """Make the server's application, which is created after its model is loaded, one behind a `Front`."""
    import fastapi

    front = Front(answering)

    class Application(fastapi.FastAPI):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            for path, route in (("/ready", front.ready_or_not), ("/metrics", front.counters)):
                self.get(path, include_in_schema=False)(route)
            if front.secret:
                self.add_route(webhook.PATH, front.reload, methods=["POST"], include_in_schema=False)

        async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await front.answer(super().__call__, scope, receive, send)
            else:
                if scope["type"] == "lifespan":
                    front.begin(super().__call__)
                await super().__call__(scope, receive, front.ending(send))

    fastapi.FastAPI = Application


class Front:
    """Meets every request first, and knows whether the server is ready."""

    def __init__(self, answering: "Answering"):
        self.answering, self.observed = answering, observed()
        self.warm, self.stopping = False, False
        file, many = os.environ.get(API_KEYS), workers(sys.argv) or 1
        self.keys = Keys(file, 1 / many) if file else None
        self.log = access_log(os.environ.get(ACCESS_LOG))
        self.drain = seconds_of(DRAIN, 0, 0, 3600)
        self.tracing, self.observations = tracing(), observations()
        self.secret = os.environ.get(webhook.SECRET)
        self.further = from_environment(answering, self.observed)
        self.follows = answering.follows or self.further.any
        if self.secret and not self.follows:
            raise UserError(
                f"{webhook.SECRET} is set, but neither {FOLLOW} nor {MODELS}: there is no alias to look at."
            )
        # A webhook has its signature in the place of a key.
        self.open = {*OPEN, webhook.PATH} if self.secret else {*OPEN}

    def begin(self, app: App) -> None:
        """The server starts; this is its event loop."""
        loop = asyncio.get_running_loop()
        # The default, a few more than there are cores, would leave requests unread that could be computed together.
        loop.set_default_executor(ThreadPoolExecutor(AT_ONCE, "request"))
        self._warming = loop.create_task(self._warm_up(app))
        before = signal.getsignal(signal.SIGTERM)
        if self.drain and callable(before):

            def stop(number: int, _: Any) -> None:
                self.stopping = True
                loop.call_soon_threadsafe(loop.call_later, self.drain, before, number, None)

            signal.signal(signal.SIGTERM, stop)
        if self.follows:

            def look(*_: Any) -> None:
                loop.call_soon_threadsafe(self.look_now)

            signal.signal(signal.SIGHUP, look)

    def look_now(self) -> None:
        """Have all aliases looked at without waiting."""
        self.answering.look_now()
        self.further.look_now()

    def ending(self, send: Send) -> Send:
        """`send` of the server's own events; before it ends, what it does beside answering gets FINISH seconds."""

        async def sending(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                if self.tracing is not None:
                    await asyncio.to_thread(self.tracing.finish, FINISH)
                if self.observations is not None:
                    await asyncio.to_thread(self.observations.finish, FINISH)
            await send(message)

        return sending

    async def _warm_up(self, app: App) -> None:
        """Answer a request of the server's own, through everything that another's goes through; then follow an alias."""
        rows = [dict.fromkeys(self.answering.columns, WARM_UP)]
        body = json.dumps({"dataframe_records": rows}).encode()
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": ASK, "raw_path": ASK.encode(), "query_string": b"", "root_path": "", "state": {},
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
            "client": None, "server": None,
        }  # fmt: skip
        events: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        got: list[Message] = []

        async def receive() -> Message:
            if not events:
                # This client never leaves.
                await asyncio.Event().wait()
            return events.pop()

        async def send(message: Message) -> None:
            got.append(message)

        try:
            await app(scope, receive, send)
            status = got[0]["status"]
            if status == 200:
                self.answering.begin(self.observed)
            self.warm = status == 200
        except Exception:
            _log.exception("The first request of the server's own failed")
        if not self.warm:
            text = b"".join(message.get("body", b"") for message in got).decode("utf-8", "replace")
            _log.error("The server is not ready: its own request was not answered. %s", text[:1000])

    async def ready_or_not(self) -> Any:
        """/ready: 200 once the server has answered a request of its own, until it is told to stop; else 503."""
        from fastapi.responses import PlainTextResponse

        if self.stopping:
            return PlainTextResponse("stopping\n", 503)
        if not self.warm or not self.answering.settled:
            return PlainTextResponse("starting\n", 503)
        return PlainTextResponse("ready\n")

    async def counters(self) -> Any:
        """/metrics, as Prometheus reads them."""
        from fastapi.responses import PlainTextResponse, Response

        found = self.observed.text()
        if found is None:
            return PlainTextResponse("prometheus_client is not installed.\n", 501)
        return Response(found[0], media_type=found[1])

    async def reload(self, request: Any) -> Any:
        """/reload: a webhook that MLflow has signed has the alias looked at now; nothing in its body is read."""
        from fastapi.responses import PlainTextResponse

        body = await request.body()
        headers = dict(request.scope["headers"])
        if len(body) > webhook.LONGEST or not webhook.is_signed(self.secret or "", headers, body):
            return PlainTextResponse("This is not signed with the secret, or too old.\n", 401)
        self.look_now()
        return PlainTextResponse("The alias is looked at now.\n", 202)

    async def answer(self, app: App, scope: Message, receive: Receive, send: Send) -> None:
        """Let the application answer a request that may be answered; every response says its id and the model's version."""
        begun, headers = time.perf_counter(), dict(scope["headers"])
        # Behind a proxy uvicorn puts its own root before the path.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        seen = Seen(request_id(headers.get(b"x-request-id", b"")))
        of_request = self.observed.current.set(seen)
        answered = left = False

        async def receiving() -> Message:
            nonlocal left
            message = await receive()
            left = left or (message["type"] == "http.disconnect" and not answered)
            return message

        async def sending(message: Message) -> None:
            nonlocal answered
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                # A further model that a request did not get has none.
                if seen.chosen is not None or not seen.model or seen.model == self.answering.name:
                    seen.version = seen.version or self.answering.version
                own = [(b"x-request-id", seen.id.encode())]
                own += [(b"x-model-version", seen.version.encode())] if seen.version else []
                own += [(b"x-model", seen.model.encode())] if seen.model else []
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        try:
            denied = self._denied(seen, path, headers) or await self.further.denied(seen, path, headers)
            if denied:
                await discard(receiving)
                await plain(sending, denied.status, denied.reason, denied.headers)
            else:
                if self.tracing is not None and path == ASK:
                    seen.traced = self.tracing.chooses(seen, headers.get(b"x-trace", b""))
                seen.kept = seen.traced or self.observations is not None
                await self._bounded(app, scope, receiving, sending)
        except Exception:
            # Nobody is there to be answered; else uvicorn answers for it.
            if not left:
                seen.status = seen.status or 500
                raise
        finally:
            # 499, as proxies call it: the client left before its answer.
            seen.status = 499 if left else seen.status or 500
            self.observed.current.reset(of_request)
            self._note(seen, scope["method"], path, time.perf_counter() - begun)

    def _denied(self, seen: Seen, path: str, headers: Mapping[bytes, bytes]) -> Denied | None:
        if self.keys is None or path in self.open:
            return None
        given = headers.get(b"authorization", b"").decode("latin-1")
        found = self.keys.asked(given, counts=path == ASK)
        if isinstance(found, Denied):
            return found
        seen.key = found.name
        return None

    async def _bounded(self, app: App, scope: Message, receive: Receive, send: Send) -> None:
        try:
            size, receive = await asyncio.wait_for(bounded(scope, receive), PATIENCE)
        except TimeoutError:
            await plain(send, 408, f"The body did not arrive within {PATIENCE:g} seconds.")
            return
        if size > LARGEST_BODY:
            await plain(send, 413, too_large(size))
            return
        await app(scope, receive, send)

    def _note(self, seen: Seen, method: str, path: str, seconds: float) -> None:
        self.observed.finished(path, seen.status, seconds)
        if seen.traced and self.tracing is not None:
            self.tracing.put(seen, seconds)
        if seen.answers and self.observations is not None and seen.status == 200:
            self.observations.put(seen, seen.model or self.answering.name)
        if self.log is not None:
            entry = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "id": seen.id,
                "method": method,
                "path": path[:200],
                "status": seen.status,
                "ms": round(1000 * seconds, 1),
                "rows": seen.rows,
                "version": seen.version,
            }
            named = {"key": seen.key, "model": seen.model}
            self.log.info(json.dumps(entry | {name: value for name, value in named.items() if value}))


def access_log(place: str | None) -> logging.Logger | None:
    """Where requests are noted: a file, which may be moved away at any time; "-" is standard output; None: nowhere."""
    if not place:
        return None
    handler: logging.Handler
    try:
        handler = (
            logging.StreamHandler(sys.stdout)
            if place == "-"
            else logging.handlers.WatchedFileHandler(place, encoding="utf-8")
        )
    except OSError as error:
        raise UserError(f"{ACCESS_LOG} {place} cannot be written: {error.strerror}.") from None
    # Of its own, so that no setting of another library reaches it.
    log = logging.Logger("access")
    log.addHandler(handler)
    return log


def request_id(given: bytes) -> str:
    """The client's id of a request, if it is up to 128 visible ASCII characters; else a new one."""
    text = given.decode("latin-1")
    return text if re.fullmatch(r"[\x21-\x7e]{1,128}", text) else uuid.uuid4().hex


async def bounded(scope: Message, receive: Receive) -> tuple[int, Receive]:
    """(size of a request's body, the function from which its application receives it); a body over LARGEST_BODY is not kept."""
    headers = dict(scope["headers"])
    announced = headers.get(b"content-length", b"").decode("latin-1")
    # The announced length does not count for a body in chunks.
    size = int(announced) if announced.isdecimal() and b"transfer-encoding" not in headers else None
    if size is not None and size <= LARGEST_BODY:
        return size, receive
    kept: list[Message] = []
    count, more = 0, size is None or size <= MOST_DISCARDED
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        count += len(message.get("body", b""))
        more = message.get("more_body", False) and count <= MOST_DISCARDED
        if size is None and count <= LARGEST_BODY:
            kept.append(message)
    waiting = iter(kept)

    async def again() -> Message:
        return next(waiting, None) or await receive()

    return max(count, size or 0), again


async def discard(receive: Receive) -> None:
    """Read a body that nobody needs, so that its sender can read the answer; of a long or slow one a part."""

    async def read() -> None:
        count, more = 0, True
        while more and count <= LARGEST_BODY:
            message = await receive()
            count += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)

    try:
        await asyncio.wait_for(read(), 5)
    except TimeoutError:
        pass


async def plain(send: Send, status: int, text: str, further: Mapping[str, str] | None = None) -> None:
    """Answer a request with a text and close its connection. further: more headers."""
    headers: Sequence[tuple[bytes, bytes]] = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"connection", b"close"),
        *((name.lower().encode(), value.encode()) for name, value in (further or {}).items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def too_large(size: int) -> str:
    """What the sender of so many bytes is told."""
    return f"The request has {size} bytes; at most {LARGEST_BODY} are read."
