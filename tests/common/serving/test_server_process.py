"""Which processes are servers."""

import sys

import pytest

from common.serving.server_process import in_server, workers

SERVER = ["/usr/bin/uvicorn", "--port", "5001"]


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        (SERVER, 1),
        ([*SERVER, "--workers", "3", "app:app"], 3),
        (["pytest", "--workers", "3"], None),
        ([], None),
    ],
)
def test_workers_are_read_off_the_servers_command_line(argv, count, monkeypatch):
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert workers(argv) == count


def test_a_server_is_known_by_its_command_or_its_application(monkeypatch):
    monkeypatch.delitem(sys.modules, "mlflow.pyfunc.scoring_server.app", raising=False)
    monkeypatch.setattr(sys, "argv", ["predict.py", "--workers", "3"])
    assert not in_server()
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc.scoring_server.app", sys)
    assert in_server()
    monkeypatch.delitem(sys.modules, "mlflow.pyfunc.scoring_server.app")
    monkeypatch.setattr(sys, "argv", SERVER)
    assert in_server()
