"""What operations need of one real `mlflow models serve`: keys, a log, counters, readiness, and an alias that it follows."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import mlflow
import psutil
import pytest
from cryptography.fernet import Fernet

from common.data import prepared
from common.registry import drift, register
from tests.support import stores, trained
from tests.support.server import mlflow_server, request, served

pytestmark = pytest.mark.long

NAME = "bert-squad-qa"
KEY = {"Authorization": "Bearer for operations"}
SECRET = "a secret of both"
WITHIN = 30
"""Seconds in which a promotion must have reached a server."""


class World(NamedTuple):
    address: str
    folder: Path
    questions: list[dict]
    expected: dict[str, list[str]]
    """Version → what it answers to the questions."""
    pid: int


@pytest.fixture(scope="module")
def versions(tmp_path_factory, tiny):
    """(folder, questions, version → its answers): 1, the champion, and 2 answer differently, and a file of 3 was changed."""
    folder = tmp_path_factory.mktemp("operations")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        expected, client = {}, mlflow.MlflowClient()
        for version, seed in (("1", 0), ("2", 1), ("3", 2)):
            run_id = trained.log_run(folder, tiny, record, examples, experiment="operations", seed=seed)
            rows = mlflow.artifacts.load_dict(f"runs:/{run_id}/predictions/test.json")
            expected[version] = [row["prediction"] for row in rows]
            if version == "1":
                assert register.register_best("operations").alias == "champion"
                continue
            (model,) = mlflow.search_logged_models(
                filter_string=f"source_run_id = '{run_id}'",
                experiment_ids=[mlflow.get_run(run_id).info.experiment_id],
                output_format="list",
            )
            client.create_model_version(NAME, f"models:/{model.model_id}", run_id)
            if version == "3":
                stored = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}"))
                with (stored / "artifacts" / "bundle" / "bundle.json").open("a") as file:
                    file.write(" ")
        assert expected["1"] != expected["2"]
        yield folder, [{name: e[name] for name in ("question", "context")} for e in examples], expected


@pytest.fixture(scope="module")
def world(versions):
    """A server that follows the champion."""
    folder, questions, expected = versions
    keys = folder / "keys"
    lines = {"operations": ("for operations", ""), "guest": ("for guests", "2")}
    keys.write_text(
        "".join(
            f"{name} {hashlib.sha256(key.encode()).hexdigest()} {limit}\n"
            for name, (key, limit) in lines.items()
        )
    )
    environment = {
        "SERVING_ACCESS_LOG": str(folder / "access.log"),
        "SERVING_API_KEYS": str(keys),
        "SERVING_FOLLOW": f"models:/{NAME}@champion",
        # It looks when it is told, and not by itself.
        "SERVING_FOLLOW_SECONDS": "3600",
        "SERVING_WEBHOOK_SECRET": SECRET,
        "SERVING_DRAIN_SECONDS": "3",
        # Only what asks for it.
        "SERVING_TRACE": "1e-12",
        "SERVING_OBSERVATIONS": str(folder / "observations"),
        "PYTHONUNBUFFERED": "1",
    }
    with served(folder, f"models:/{NAME}@champion", **environment) as (address, _, server):
        waited(lambda: request(f"{address}/ready")[0] == 200)
        yield World(address, folder, questions, expected, server.pid)


def waited(condition, seconds=WITHIN):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def ask(world, rows, **headers):
    return request(f"{world.address}/invocations", {"inputs": rows}, **(KEY | headers))


def logged(world):
    return [json.loads(line) for line in (world.folder / "access.log").read_text().splitlines()]


def noted(world, id_):
    """The line of a request in the log. It is counted and noted once its answer has left."""
    found = []
    waited(lambda: found.extend(line for line in logged(world) if line["id"] == id_) or found)
    return found[0]


def counters(world):
    status, _, text = request(f"{world.address}/metrics", **KEY)
    assert status == 200
    found = re.findall(r"^(suite_\S+?(?:\{.*?\})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_an_answer_says_its_request_and_its_version(world):
    status, headers, text = ask(world, world.questions, X_Request_Id="batch-17")
    assert status == 200 and (headers["x-request-id"], headers["x-model-version"]) == ("batch-17", "1")
    assert [row["answer"] for row in json.loads(text)["predictions"]] == world.expected["1"]
    line = noted(world, "batch-17")
    assert (line["path"], line["status"], line["rows"], line["version"], line["key"]) == (
        "/invocations", 200, len(world.questions), "1", "operations",
    )  # fmt: skip
    assert 0 < line["ms"] < 60_000
    assert not any(q["question"] in (world.folder / "access.log").read_text() for q in world.questions)


def test_a_trace_in_the_store(world):
    ask(world, world.questions, X_Request_Id="not-traced")
    ask(world, world.questions, X_Request_Id="traced", X_Trace="1")
    client, found = mlflow.MlflowClient(), []

    def written():
        made = mlflow.get_experiment_by_name("served")
        found[:] = client.search_traces(locations=[made.experiment_id]) if made else []
        return found

    waited(written)
    (span,) = found[0].data.spans
    assert (span.attributes["request_id"], span.attributes["rows"]) == ("traced", len(world.questions))
    assert span.attributes["tokens"] > 100 and span.attributes["status"] == 200
    assert not any(q["question"] in found[0].to_json() for q in world.questions)


def test_what_was_asked_is_noted_and_can_be_compared(world):
    asked = {len(q["question"]) for q in world.questions}

    def lines():
        text = "".join(file.read_text() for file in (world.folder / "observations").iterdir())
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    ask(world, world.questions)
    waited(lambda: asked <= {line["texts"]["question"][0] for line in lines()})
    assert not any(q["question"] in str(lines()) for q in world.questions)
    measures = drift.compare(world.folder / "observations", f"models:/{NAME}/1").measures
    assert {"question script": False, "outcome": False}.items() <= {
        m.name: m.drifts for m in measures
    }.items()


def test_each_of_many_at_once_gets_what_it_gets_alone(world):
    """Long and short, with parameters of their own, and refused ones among them."""
    questions = world.questions
    long = {**questions[0], "context": " ".join(q["context"] for q in questions) * 10}
    asked = [
        *(([question], {}) for question in questions),
        (questions[:3], {"top_k": 5, "null_odds": True}),
        (questions[2:4], {"null_threshold": -1e6, "max_answer_length": 2}),
        (questions[1:4], {"null_threshold": 1e6, "raw_scores": True}),
        ([long], {"top_k": 2}),
        ([{"question": " ", "context": "A."}], {}),
        (questions[:1], {"top_k": 0}),
        (questions[:2], {"max_error": 0.01}),
    ]

    def answer(each):
        rows, params = each
        status, _, text = request(f"{world.address}/invocations", {"inputs": rows, "params": params}, **KEY)
        return status, text if status != 200 else rounded(json.loads(text))

    alone = [answer(each) for each in asked]
    assert {status for status, _ in alone} == {200, 400}
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(answer, asked * 4))
    for i, (found, expected) in enumerate(zip(together, alone * 4, strict=True)):
        assert found == expected, asked[i % len(asked)]


def rounded(content):
    """Scores as numbers that are equal up to rounding; all else as it is."""
    if isinstance(content, dict):
        return {name: rounded(value) for name, value in content.items()}
    if isinstance(content, list):
        return [rounded(value) for value in content]
    return pytest.approx(content, abs=1e-4) if isinstance(content, float) else content


def test_nobody_is_answered_without_a_key_and_guests_not_always(world):
    address, body = world.address, {"inputs": world.questions[:1]}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic Zm9yOg=="}):
        status, found, text = request(f"{address}/invocations", body, **headers)
        assert status == 401 and "Bearer" in found["www-authenticate"] and "predictions" not in text
    assert request(f"{address}/metrics")[0] == 401
    assert [request(f"{address}/{path}")[0] for path in ("ping", "health", "ready")] == [200] * 3
    assert request(f"{address}/reload", {"alias": "champion"})[0] == 401
    # A body that is not read does not break the answer.
    assert request(f"{address}/invocations", {"inputs": ["x" * 10_000_000]})[0] == 401
    guest = {"Authorization": "Bearer for guests"}
    assert [request(f"{address}/invocations", body, **guest)[0] for _ in range(2)] == [200, 200]
    status, found, _ = request(f"{address}/invocations", body, **guest)
    assert status == 429 and 1 <= int(found["retry-after"]) <= 30


def test_no_other_site_may_read_answers(world):
    """No CORS: a browser shows a page of another origin nothing of it."""
    _, headers, _ = ask(world, world.questions[:1], Origin="http://elsewhere.example")
    assert not any(name.startswith("access-control") for name in headers)


def test_counters(world):
    ask(world, world.questions, X_Request_Id="before")
    noted(world, "before")
    before = counters(world)
    ask(world, world.questions, X_Request_Id="good")
    bad = {"inputs": [{"question": "Who?"}]}
    request(f"{world.address}/invocations", bad, X_Request_Id="bad", **KEY)
    noted(world, "good"), noted(world, "bad")
    after = counters(world)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown['suite_requests_total{path="/invocations",status="200"}'] == 1
    assert grown['suite_errors_total{kind="bad_request"}'] == 1
    assert grown["suite_request_seconds_count"] == 2
    rows = sum(grown.get(f'suite_rows_total{{outcome="{o}"}}', 0) for o in ("answered", "no_answer"))
    assert rows == len(world.questions) and grown["suite_pass_rows_sum"] >= rows
    assert grown['suite_tokens_total{kind="text"}'] > 100
    assert after['suite_model{version="1"}'] == 1


def alias(version, pid):
    """Move the champion, and hang up on the server that was started with this process, or on its workers."""
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", version)
    (server,) = psutil.Process(pid).children()
    workers = [each for each in server.children() if "spawn_main" in " ".join(each.cmdline())]
    for process in workers or [server]:
        process.send_signal(signal.SIGHUP)


def test_promotions_under_load_lose_and_mix_nothing(world):
    stop, seen = [], []

    def client(number):
        i = number
        while not stop:
            i = (i + 1) % len(world.questions)
            status, headers, text = ask(world, [world.questions[i]])
            assert status == 200, text
            version = headers["x-model-version"]
            (row,) = json.loads(text)["predictions"]
            assert row["answer"] == world.expected[version][i], version
            seen.append(version)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        try:
            waited(lambda: "1" in seen)
            alias(2, world.pid)
            waited(lambda: seen[-1] == "2")
            # A version that does not open changes nothing, and the next one is taken all the same.
            alias(3, world.pid)
            waited(lambda: "bundle.json was changed" in (world.folder / "server.log").read_text())
            assert seen[-1] == "2"
            alias(1, world.pid)
            waited(lambda: seen[-1] == "1")
        finally:
            stop.append(True)
        for done in clients:
            done.result(60)
    assert set(seen) == {"1", "2"} and len(seen) > 10
    found = counters(world)
    assert found['suite_model{version="1"}'] == 1 and found['suite_model{version="2"}'] == 0
    assert {line["version"] for line in logged(world)} == {"1", "2"}


def test_a_webhook_of_mlflow_has_it_look_at_once(world):
    own = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    }
    with mlflow_server(world.folder, os.environ["MLFLOW_TRACKING_URI"], **own) as address:
        client, events = mlflow.MlflowClient(address, address), ["model_version_alias.created"]
        made = client.create_webhook("reload", f"{world.address}/reload", events, secret=SECRET)
        assert client.test_webhook(made.webhook_id).response_status == 202
        for version in ("2", "1"):
            client.set_registered_model_alias(NAME, "champion", version)
            waited(lambda: ask(world, world.questions[:1])[1]["x-model-version"] == version)  # noqa: B023
    found = [line for line in logged(world) if line["path"] == "/reload"]
    assert [line["status"] for line in found].count(202) == 3


def test_a_client_that_leaves_holds_nobody(world):
    host, port = world.address.removeprefix("http://").split(":")
    body = json.dumps({"inputs": [q | {"context": q["context"] * 40} for q in world.questions]}).encode()
    for _ in range(3):
        with socket.create_connection((host, int(port))) as left:
            head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY['Authorization']}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            left.sendall(head.encode() + body)
    with socket.create_connection((host, int(port))) as slow:
        # Announces a body that never comes.
        slow.sendall(head.encode())
        status, _, text = ask(world, world.questions)
    assert status == 200
    assert [row["answer"] for row in json.loads(text)["predictions"]] == world.expected["1"]


def test_after_sigterm_it_is_not_ready_and_answers_for_a_while(world):
    """The last test: it ends the server."""
    os.kill(world.pid, signal.SIGTERM)
    waited(lambda: request(f"{world.address}/ready")[0] == 503, 2)
    assert ask(world, world.questions[:1])[0] == 200

    def gone():
        try:
            request(f"{world.address}/ready")
        except OSError:
            return True
        return False

    waited(gone)


WITHOUT = "raise ImportError('no prometheus_client in this environment')"


def test_two_workers_behind_tls_without_prometheus_client(versions, tmp_path, monkeypatch):
    folder, questions, expected = versions
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=test"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "prometheus_client.py").write_text(WITHOUT)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", 1)
    environment = {
        "UVICORN_SSL_CERTFILE": str(tmp_path / "cert.pem"),
        "UVICORN_SSL_KEYFILE": str(tmp_path / "key.pem"),
        "PYTHONPATH": str(tmp_path / "hiding"),
        "SERVING_FOLLOW": f"models:/{NAME}@champion",
        "SERVING_FOLLOW_SECONDS": "3600",
    }
    served_ = served(tmp_path, f"models:/{NAME}@champion", "--workers", "2", **environment)
    with served_ as (address, _, server):
        assert address.startswith("https")

        def versions_now():
            found = set()
            for i, question in enumerate(questions * 2):
                status, headers, text = request(f"{address}/invocations", {"inputs": [question]})
                assert status == 200, text
                version = headers["x-model-version"]
                assert json.loads(text)["predictions"][0]["answer"] == expected[version][i % len(questions)]
                found.add(version)
            return found

        waited(lambda: request(f"{address}/ready")[0] == 200)
        assert versions_now() == {"1"}
        assert request(f"{address}/metrics")[0] == 501
        alias(2, server.pid)
        waited(lambda: versions_now() == {"2"})
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", 1)
