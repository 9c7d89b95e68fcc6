"""The champion over HTTP: one real `mlflow models serve`, every request format, and what it refuses."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest

from common import data, registry
from common.tasks import TASKS
from tests import trained

pytestmark = pytest.mark.slow

LONG = "The heart pumps blood through the body about seventy times a minute. " * 290
GOOD = {
    "question": "Who shared the prize?",
    "context": "In 1903 Marie Curie shared the Nobel Prize in Physics.",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(address of the served champion, its test examples, what its run answered to them, file of the server's log)."""
    folder = tmp_path_factory.mktemp("serve")
    with trained.store(folder):
        record = trained.prepare_data(folder)
        examples = data.load(folder / "data")[0]["test"].to_list()
        run_id = trained.log_run(folder, tiny, record, examples, experiment="serve")
        assert registry.register_best("serve").alias == "champion"
        recorded = mlflow.artifacts.load_dict(f"runs:/{run_id}/predictions/test.json")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "models",
            "serve",
            "-m",
            f"models:/{TASKS['extractive-qa'].registered}@champion",
        ]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        log = folder / "server.log"
        with open(log, "w") as output:
            server = subprocess.Popen(
                [*command, "--env-manager", "local", "-p", str(port)],
                env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/ping", server, log)
            yield address, examples, recorded, log
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


def answers(address, body):
    status, text = post(address, body)
    assert status == 200, text
    content = json.loads(text)
    assert list(content) == ["predictions"]
    return content["predictions"]


def as_formats(rows):
    """The same rows in every format that MLflow's server knows."""
    columns = ["question", "context"]
    rows = [{name: row[name] for name in columns} for row in rows]
    return {
        "dataframe_split": {"columns": columns, "data": [list(row.values()) for row in rows]},
        "dataframe_records": rows,
        "instances": rows,
        "inputs": rows,
        "inputs as columns": {name: [row[name] for row in rows] for name in columns},
    }


FORMATS = list(as_formats([GOOD]))


def body(kind, rows):
    return {kind.split()[0]: as_formats(rows)[kind]}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_answers_of_the_run(kind, world):
    address, examples, recorded, _ = world
    for rows, expected in ((examples, recorded), (examples[:1], recorded[:1])):
        for row, answer, example in zip(expected, answers(address, body(kind, rows)), rows, strict=True):
            assert set(answer) == {"answer", "score", "start", "end"}
            assert (answer["answer"], answer["start"], answer["end"]) == (
                row["prediction"],
                row["start"],
                row["end"],
            )
            assert answer["score"] == pytest.approx(row["probability"], abs=1e-4)
            if answer["start"] >= 0:
                assert example["context"][answer["start"] : answer["end"]] == answer["answer"]


@pytest.mark.parametrize("kind", FORMATS)
def test_parameters(kind, world):
    address = world[0]
    (answer,) = answers(address, body(kind, [GOOD]) | {"params": {"top_k": 4, "null_threshold": 1e6}})
    assert answer["answer"] and len(answer["alternatives"]) == 3
    assert all(set(other) == {"answer", "score", "start", "end"} for other in answer["alternatives"])
    (answer,) = answers(
        address, body(kind, [GOOD]) | {"params": {"null_threshold": -1e6, "max_answer_length": 3}}
    )
    assert (answer["answer"], answer["start"], answer["end"]) == ("", -1, -1)


def test_a_long_context_is_read_to_its_end(world):
    assert len(LONG) > 20_000
    asked = {"question": "What does the heart do?", "context": LONG}
    found = answers(world[0], {"inputs": [asked], "params": {"top_k": 100, "null_threshold": 1e6}})[0]
    spans = [found, *found["alternatives"]]
    assert all(LONG[a["start"] : a["end"]] == a["answer"] for a in spans if a["start"] >= 0)
    assert max(a["end"] for a in spans) > 10_000


def test_no_rows_no_answers(world):
    assert answers(world[0], {"dataframe_split": {"columns": ["question", "context"], "data": []}}) == []


def test_requests_at_once(world):
    address, examples, recorded, _ = world
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda e: answers(address, body("inputs", [e]))[0], examples * 5))
    assert [a["answer"] for a in found] == [row["prediction"] for row in recorded] * 5


BAD_VALUES = {
    "null": None,
    "number": 5,
    "boolean": True,
    "list": ["Who?"],
    "object": {"a": 1},
    "empty": "",
    "blank": " \n ",
    "surrogate": "Who \ud800?",
    "too long": "w" * 300_000,
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("column", ["question", "context"])
def test_bad_values_get_a_plain_reason(kind, value, column, world):
    refused(*post(world[0], body(kind, [GOOD | {column: BAD_VALUES[value]}])))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_missing_column_gets_a_plain_reason(kind, world):
    whole = body(kind, [GOOD, GOOD])
    text = json.dumps(whole).replace('"context"', '"contxt"').encode()
    assert "context" in refused(*post(world[0], text))


PARAMS = [
    {"top_k": 0},
    {"top_k": 1000},
    {"top_k": "three"},
    {"top_k": 1.5},
    {"top_k": [1]},
    {"max_answer_length": -3},
    {"null_threshold": "high"},
    [1],
]


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_bad_parameters_get_a_plain_reason(params, world):
    refused(*post(world[0], {"inputs": [GOOD], "params": params}))


def test_an_unknown_parameter_is_dropped_by_mlflow_before_the_model_sees_it(world):
    """When this fails, MLflow refuses them, as we would."""
    assert len(answers(world[0], {"inputs": [GOOD], "params": {"topk": 3}})) == 1


BODIES = {
    "not JSON": b'{"inputs": [',
    "no UTF-8": b'{"inputs": [{"question": "\xff"}]}',
    "empty": b"",
    "null": b"null",
    "number": b"5",
    "string": b'"Who?"',
    "list": json.dumps([GOOD]).encode(),
    "bare row": json.dumps(GOOD).encode(),
    "unknown key": json.dumps({"rows": [GOOD]}).encode(),
    "two formats": json.dumps({"inputs": [GOOD], "instances": [GOOD]}).encode(),
    "inputs null": b'{"inputs": null}',
    "inputs number": b'{"inputs": 5}',
    "inputs text": b'{"inputs": "Who?"}',
    "inputs of numbers": b'{"inputs": [1, 2]}',
    "records null": b'{"dataframe_records": null}',
    "records number": b'{"dataframe_records": 5}',
    "split number": b'{"dataframe_split": 5}',
    "split ragged": b'{"dataframe_split": {"columns": ["question", "context"], "data": [["a"]]}}',
    "columns of unlike length": b'{"inputs": {"question": ["a", "b"], "context": ["c"]}}',
    "too many rows": json.dumps({"inputs": [GOOD] * 300}).encode(),
    "too many characters": json.dumps({"inputs": [GOOD | {"context": "w " * 90_000}] * 3}).encode(),
}


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_get_a_plain_reason(name, world):
    refused(*post(world[0], BODIES[name]))


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/json; charset=latin-1"]
)
def test_other_content_types_are_refused(content_type, world):
    status, text = post(world[0], {"inputs": [GOOD]}, content_type)
    assert status == 415 and text


def refused(status, text):
    assert 400 <= status < 500, (status, text[:2000])
    assert 0 < len(text) < 3000, text[:3000]
    assert "Traceback" not in text and "stack_trace" not in text and 'File \\"' not in text, text[:3000]
    return text
