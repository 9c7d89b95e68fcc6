"""A real `mlflow models serve` in a process group of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """A port that nothing listens on, for a server that is started at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def served(folder: Path, uri: str, *flags: str, **environment: str):
    """Serve a model of the store in force from a folder; gives (address, log, process)."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = folder / "server.log"
    with open(log, "w") as output:
        server = subprocess.Popen(
            [*command, "-p", str(port), *flags],
            # How many cores an answer takes is the model's to decide.
            env={n: v for n, v in os.environ.items() if n != "OMP_NUM_THREADS"}
            | {"PATH": path}
            | environment,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        scheme = "https" if "UVICORN_SSL_CERTFILE" in environment else "http"
        address = f"{scheme}://127.0.0.1:{port}"
        wait_for(f"{address}/ping", server, log)
        yield address, log, server
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


@contextmanager
def mlflow_server(folder: Path, store: str, **environment: str):
    """MLflow's own server for a store; gives its address."""
    address, log = f"http://127.0.0.1:{(port := free_port())}", folder / "mlflow-server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    with open(log, "w") as output:
        server = subprocess.Popen(
            [*command, "--backend-store-uri", store],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | environment,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(f"{address}/health", server, log)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


def wait_for(url, server, log, seconds=150):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-3000:]}")


def post(address, body, content_type="application/json"):
    """(status, text) of a request."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def request(url, body=None, **headers):
    """(status, headers in lower case, text) of a GET, or of a POST of JSON."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        body, sent = json.dumps(body).encode(), {"Content-Type": "application/json"} | sent
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, sent), timeout=60) as answer:
            found = answer.headers
            return answer.status, {n.lower(): v for n, v in found.items()}, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, {n.lower(): v for n, v in error.headers.items()}, error.read().decode()
