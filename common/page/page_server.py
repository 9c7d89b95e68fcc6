"""The page's server: werkzeug's, with a limit on the threads and on how long a connection may keep one."""

import io
import socket
import socketserver
import threading
import time
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

PATIENCE = 20.0
"""Seconds that a client may take for the next piece of its request; connections that send nothing end then."""

WHOLE = 60.0
"""Seconds that a whole request may take to arrive, even if pieces of it keep coming."""

THREADS = 32
"""Connections that are served at once; others wait."""


class Incoming(io.RawIOBase):
    """What a client sends; TimeoutError after `whole` seconds in all, or after `patience` seconds of silence."""

    def __init__(self, connection: socket.socket, patience: float, whole: float):
        self.connection, self.patience = connection, patience
        self.end = time.monotonic() + whole

    def readable(self) -> bool:
        """For BufferedReader."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("The request took too long to arrive.")
        self.connection.settimeout(min(left, self.patience))
        try:
            return self.connection.recv_into(buffer)
        finally:
            # For the answer.
            self.connection.settimeout(self.patience)


class Handler(WSGIRequestHandler):
    """Ends connections of clients that are silent or too slow."""

    timeout = PATIENCE
    whole = WHOLE

    def setup(self) -> None:
        """Read through `Incoming`."""
        super().setup()
        self.rfile.close()
        self.rfile: io.BufferedIOBase = io.BufferedReader(Incoming(self.connection, self.timeout, self.whole))


class Server(ThreadedWSGIServer):
    """Serves `app` on a socket that is already listening."""

    def __init__(self, app: Any, listening: socket.socket, handler: type[WSGIRequestHandler] = Handler):
        host, port = listening.getsockname()[:2]
        self.free = threading.BoundedSemaphore(THREADS)
        super().__init__(host, port, app, handler, fd=listening.fileno())
        listening.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Process a request in a thread of its own, once one is free."""
        self.free.acquire()
        try:
            super().process_request(request, client_address)
        except Exception:
            # Not at a signal, which ends the server: the thread may run already, and frees itself then.
            self.free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Free the thread at the end of the request, also after an error."""
        try:
            socketserver.ThreadingMixIn.process_request_thread(self, request, client_address)
        finally:
            self.free.release()
