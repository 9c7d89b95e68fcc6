"""The page's server: werkzeug's, with a bound on the threads and on how long a connection may keep one."""

import socket
import socketserver
import threading

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

PATIENCE = 20.0
"""Seconds that a client may take for the next piece of its request; connections that send nothing end then."""

THREADS = 32
"""Connections that are served at once; others wait."""


class Handler(WSGIRequestHandler):
    """Ends a connection whose client is silent."""

    timeout = PATIENCE


class Server(ThreadedWSGIServer):
    """`app` on a socket that listens already."""

    def __init__(self, app, listening: socket.socket, handler: type[WSGIRequestHandler] = Handler):
        host, port = listening.getsockname()[:2]
        self.free = threading.BoundedSemaphore(THREADS)
        super().__init__(host, port, app, handler, fd=listening.fileno())
        listening.close()

    def process_request(self, request, client_address):
        """In a thread of its own, once one is free."""
        self.free.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.free.release()
            raise

    def process_request_thread(self, request, client_address):
        """Free the thread, however the request ends."""
        try:
            socketserver.ThreadingMixIn.process_request_thread(self, request, client_address)
        finally:
            self.free.release()
