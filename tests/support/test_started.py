"""Scripts that begin with their imports done are processes like any other."""

import json
import os
import sys

import pytest

from tests.support.started import Starter

SCRIPT = """
import json, os, random, signal, sys
import numpy, torch
import beside
if sys.argv[1:] == ["die"]:
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1:] == ["wait"]:
    signal.pause()
print("said", file=sys.stderr)
print(json.dumps({
    "arguments": sys.argv, "cwd": os.getcwd(), "name": __name__, "input": sys.stdin.read(),
    "uri": os.environ.get("MLFLOW_TRACKING_URI"), "parent": os.getppid(),
    "random": [random.random(), float(numpy.random.random()), float(torch.rand(()))],
}))
sys.exit(3)
"""


@pytest.fixture(scope="module")
def starter():
    return Starter()


@pytest.fixture
def script(tmp_path):
    (tmp_path / "beside.py").write_text("")
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    return str(file)


@pytest.mark.slow
def test_each_has_its_own_arguments_directory_store_and_random_numbers(
    starter, script, tmp_path, monkeypatch
):
    found = []
    for uri in ("sqlite:///one.db", None):
        if uri:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        else:
            monkeypatch.delenv("MLFLOW_TRACKING_URI")
        done = starter.run([script, "a b"], tmp_path)
        assert (done.returncode, done.stderr) == (3, "said\n")
        found.append(json.loads(done.stdout))
        expected = {"arguments": [script, "a b"], "cwd": str(tmp_path), "name": "__main__", "input": ""}
        assert expected.items() <= found[-1].items() and found[-1]["uri"] == uri
    assert not set(found[0]["random"]) & set(found[1]["random"])
    parents = {one["parent"] for one in found}
    assert len(parents) == 1
    # Elsewhere they are ordinary processes.
    assert (os.getpid() in parents) == (sys.platform != "linux")


@pytest.mark.slow
def test_one_that_dies_or_hangs_is_over_and_the_next_runs(starter, script):
    assert starter.run([script, "die"]).returncode == -9
    assert starter.run([script, "wait"], seconds=1).returncode == -9
    assert starter.run([script]).returncode == 3


def test_another_environment_or_a_second_one_at_once_needs_a_process_of_its_own(monkeypatch):
    starter = Starter()
    monkeypatch.setattr(starter, "_environment", {})
    assert starter.run(["never run"]) is None
    with starter._lock:
        assert starter.run(["never run"]) is None
