"""The page's server over real sockets."""

import socket
import socketserver
import threading
import time

import pytest
from werkzeug import Request, Response

from common.page import page_server
from common.page.page_server import Handler, Server


@Request.application
def app(request):
    request.get_data()
    return Response(request.path)


@pytest.fixture
def address(monkeypatch):
    """Of a server with two threads that waits a quarter of a second for a silent client."""
    monkeypatch.setattr(page_server, "THREADS", 2)

    class Hasty(Handler):
        timeout = 0.25
        whole = 1.0

        def log(self, type, message, *args):
            pass

    server = Server(app, socket.create_server(("127.0.0.1", 0)), Hasty)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address
    server.shutdown()
    thread.join()
    server.server_close()


def asked(address, path="/x") -> bytes:
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        found = b""
        while piece := connection.recv(4096):
            found += piece
    return found


def test_connections_that_stay_silent_end_and_others_are_answered(address):
    silent = [socket.create_connection(address, timeout=20) for _ in range(6)]
    silent[0].sendall(b"POST / HTTP/1.0\r\nContent-")
    begun = time.monotonic()
    assert asked(address).endswith(b"/x")
    assert time.monotonic() - begun < 15
    for connection in silent:
        # The server ended it.
        assert b"200 OK" not in connection.recv(4096)
        connection.close()


@pytest.mark.parametrize(
    "begun", ["GET /x HTTP/1.0\r\nX: ", "POST /x HTTP/1.0\r\nContent-Length: 1000\r\n\r\n"]
)
def test_a_client_that_sends_a_byte_now_and_then_is_cut_off(address, begun):
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(begun.encode())
        ended = False
        # Three times as long as a request may take.
        for _ in range(60):
            try:
                connection.sendall(b"x")
            except OSError:
                ended = True
                break
            time.sleep(0.05)
        assert ended


def test_the_threads_are_bounded(address):
    before = threading.active_count()
    silent = [socket.create_connection(address, timeout=20) for _ in range(8)]
    time.sleep(0.1)
    assert threading.active_count() - before <= 2
    for connection in silent:
        connection.close()
    assert asked(address).endswith(b"/x")


def test_a_signal_while_a_thread_is_started_is_not_lost(monkeypatch):
    """It arrives once the request has been answered, and its thread has freed its place."""
    begin = socketserver.ThreadingMixIn.process_request

    def interrupted(self, request, client_address):
        before = set(threading.enumerate())
        begin(self, request, client_address)
        for thread in set(threading.enumerate()) - before:
            thread.join()
        raise SystemExit(143)

    monkeypatch.setattr(socketserver.ThreadingMixIn, "process_request", interrupted)
    server = Server(app, socket.create_server(("127.0.0.1", 0)))
    try:
        with socket.create_connection(server.server_address, timeout=20) as connection:
            connection.sendall(b"GET /x HTTP/1.0\r\n\r\n")
            with pytest.raises(SystemExit):
                server.process_request(*server.get_request())
    finally:
        server.server_close()
