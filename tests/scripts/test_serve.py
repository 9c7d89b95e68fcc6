"""The champion over HTTP: one real `mlflow models serve`, every request format, and what it refuses."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import mlflow
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.data import prepared
from common.paths import ROOT
from common.registry import register
from common.serving.question_requests import MAX_CONTEXT
from tests.support import stores, trained
from tests.support.odd_requests import (
    FORMATS,
    GOOD,
    as_parquet,
    bodies,
    body,
    parameters,
    processes,
    refused,
    send_zeros,
    text,
)
from tests.support.server import post, served

pytestmark = pytest.mark.slow

LONG = "The heart pumps blood through the body about seventy times a minute. " * 290


class World(NamedTuple):
    address: str
    examples: list[dict]
    recorded: list[dict]
    """What the run answered to the examples."""
    log: Path
    pid: int
    """Of `mlflow models serve`."""


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """The served champion."""
    folder = tmp_path_factory.mktemp("serve")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        run_id = trained.log_run(folder, tiny, record, examples, experiment="serve")
        assert register.register_best("serve").alias == "champion"
        recorded = mlflow.artifacts.load_dict(f"runs:/{run_id}/predictions/test.json")
        with served(folder, "models:/bert-squad-qa@champion") as (address, log, server):
            yield World(address, examples, recorded, log, server.pid)


def answers(address, body):
    status, text = post(address, body)
    assert status == 200, text
    content = json.loads(text)
    assert list(content) == ["predictions"]
    return content["predictions"]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_answers_of_the_run(kind, world):
    address, examples, recorded = world[:3]
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


def test_a_context_of_100_000_characters_is_answered_and_one_beyond_the_limit_refused(world):
    context = (LONG * 6)[:100_000]
    rows = [
        {"question": "What does the heart do?", "context": text} for text in (context, LONG, GOOD["context"])
    ]
    together = answers(world[0], {"inputs": rows})
    for row, found in zip(rows, together, strict=True):
        (alone,) = answers(world[0], {"inputs": [row]})
        assert (found["start"], found["end"]) == (alone["start"], alone["end"])
        assert found["score"] == pytest.approx(alone["score"], abs=1e-4)
    text = refused(*post(world[0], {"inputs": [GOOD | {"context": "w " * MAX_CONTEXT}]}))
    assert f"at most {MAX_CONTEXT}" in text


def test_no_rows_no_answers(world):
    assert answers(world[0], {"dataframe_split": {"columns": ["question", "context"], "data": []}}) == []


def test_requests_at_once(world):
    address, examples, recorded = world[:3]
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


# Many short requests to one server: no example is slow by itself.
lasting = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@lasting
@given(content=bodies, params=st.none() | parameters)
def test_whatever_is_asked_is_answered_or_refused_in_plain_words(world, content, params):
    if isinstance(content, dict) and params is not None:
        content = content | {"params": params}
    status, reply = post(world[0], content)
    if status != 200:
        refused(status, reply)
    else:
        # Strict JSON: no NaN.
        json.loads(reply, parse_constant=lambda name: pytest.fail(f"{name} in {reply}"))


@lasting
@given(
    content=st.binary(max_size=60) | text.map(lambda t: t.encode(errors="surrogatepass")),
    content_type=st.sampled_from(
        ["application/json", "text/csv", "application/vnd.apache.parquet", "", "text/html", "a;b=c;d"]
    ),
)
def test_bytes_of_any_type_are_answered_or_refused_in_plain_words(world, content, content_type):
    status, reply = post(world[0], content, content_type)
    if status != 200:
        refused(status, reply)


DEEP = 100_000
HEAVY = {
    "nested lists": b'{"inputs": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "nested objects": b'{"inputs": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "nested, cut off": b"[" * DEEP,
    "10 MB of one word": json.dumps({"inputs": [GOOD | {"context": "w" * 10_000_000}]}).encode(),
    "10 MB of rows": json.dumps({"inputs": [GOOD] * 110_000}).encode(),
    "10 MB of broken JSON": b'{"inputs": "' + b"w" * 10_000_000,
    "10 MB of an unknown key": json.dumps({"inputs": [GOOD], "w" * 10_000_000: 1}).encode(),
    "20 MB of spaces": b" " * 20_000_000 + json.dumps({"inputs": [GOOD]}).encode(),
    "a long number": b'{"inputs": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_bodies_are_answered_or_refused_in_plain_words(name, world):
    status, reply = post(world[0], HEAVY[name])
    refused(status, reply)
    assert answers(world[0], {"inputs": [GOOD]})


IGNORED_BY_MLFLOW = {
    "a parameter": ({"inputs": [GOOD], "params": {"topk": 3}}, "'topk', which is not known; did you mean 'top_k'?"),
    "a key": ({"inputs": [GOOD], "parameters": {"top_k": 2}}, "'parameters', which is not known; did you mean 'params'?"),
    "a column": ({"inputs": [GOOD | {"contxt": "x"}]}, "row 0 has 'contxt', which is not known; did you mean 'context'?"),
    "unequal rows": ({"instances": [GOOD, {"question": "Who?", "contexts": "x"}]}, "row 1 has 'contexts'"),
    "a row without a field": ({"dataframe_records": [GOOD, {"question": "Who?"}]}, "row 1 has no 'context'"),
    "a chat": (GOOD | {"messages": [{"role": "user", "content": "Who?"}]}, "'messages' belongs to chat models"),
    "ragged": ({"dataframe_split": {"columns": ["question", "context"], "data": [["a", "b", "c"]]}}, "row 0 holds 3 values"),
    "twice": (b'{"inputs": [{"question": "a", "question": "b", "context": "c"}]}', "'question' occurs twice"),
    "a list in a row": ({"inputs": [{"question": ["a", "b"], "context": ["c", "d"]}]}, "row 0: question must be a string, not a list"),
    "a list in a split row": ({"dataframe_split": {"columns": ["question", "context"], "data": [[["a"], ["b"]]]}}, "row 0: question must be a string"),
    "lists in columns": ({"inputs": {"question": [["a"]], "context": [["b"]]}}, "row 0: question must be a string, not a list"),
    "objects as columns": ({"inputs": {"question": {"0": "a", "1": "b"}, "context": {"1": "c"}}}, "question must be a string, not an object"),
    "one text for two": ({"inputs": {"question": ["a", "b"], "context": "c"}}, "must all be lists, or all be single texts"),
    "unequal columns": ({"inputs": {"question": ["a", "b"], "context": ["c"]}}, "2 of 'question' and 1 of 'context'"),
    "nothing": ({"inputs": []}, "inputs holds no rows"),
    "nothing like it": ({"inputs": [GOOD], "params": {"zzz": 1}}, "has the parameter 'zzz', which is not known. Known: top_k"),
    "half a character": ({"instances": [GOOD | {"context": "\ud83d"}]}, "row 0: context holds a lone surrogate"),
    "infinity": (b'{"inputs": [{"question": "a", "context": "b"}], "params": {"null_threshold": 1e400}}', "too large a number"),
    "NaN": (b'{"inputs": [{"question": "a", "context": "b"}], "params": {"null_threshold": NaN}}', "NaN is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", IGNORED_BY_MLFLOW)
def test_what_mlflow_would_ignore_or_mix_is_refused(name, world):
    content, message = IGNORED_BY_MLFLOW[name]
    status, reply = post(world[0], content)
    assert status == 400 and message in json.loads(reply)["message"], reply


@pytest.mark.parametrize("kind", ["Application/JSON", 'application/json; charset="UTF-8"'])
def test_content_types_in_any_spelling_are_taken(kind, world):
    assert post(world[0], {"inputs": [GOOD]}, kind)[0] == 200


def test_csv_is_answered_as_json_is(world):
    rows = [
        GOOD,
        {"question": 'Who, "again"?', "context": "Line one,\nand Marie Curie. 5"},
        {"question": "NA", "context": "NA"},
    ]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, ["context", "question"])
    writer.writeheader()
    writer.writerows(rows)
    for start in ("", "\ufeff"):
        status, reply = post(world[0], (start + lines.getvalue()).encode(), "text/csv")
        assert status == 200, reply
        assert json.loads(reply)["predictions"] == answers(world[0], {"inputs": rows})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("question,context\nWho?,\n", "row 0: context is empty"),
        ("question,contex\nWho?,x\n", "did you mean 'context'"),
        ("question\nWho?\n", "has no 'context'"),
        ("question,context\nWho?,a,b\n", "3 cells at line 2"),
        ('question,context\nWho?,"a\n', "cannot be read at line"),
        ("", "has no 'question'"),
        ("question;context\nWho?;a\n", "separated by commas, not by ';'"),
        ("question\tcontext\nWho?\ta\n", "separated by commas"),
        (",question,context\n0,Who?,a\n", "has '', which is not known. Known: question"),
    ],
)
def test_bad_csv_is_refused_with_its_reason(body, message, world):
    status, reply = post(world[0], body.encode(), "text/csv")
    assert status == 400 and message in reply, reply


def test_parquet_is_read_as_strictly(world):
    kind = "application/vnd.apache.parquet"
    rows = pd.DataFrame([GOOD, GOOD], index=pd.Index(["a", "b"], name="id"))
    status, reply = post(world[0], as_parquet(rows), kind)
    assert status == 200, reply
    assert json.loads(reply)["predictions"] == answers(world[0], {"inputs": [GOOD, GOOD]})
    for content, message in (
        (as_parquet(rows.assign(contxt="x")), "'contxt', which is not known; did you mean 'context'?"),
        (as_parquet(rows[["question"]]), "has no 'context'"),
        (as_parquet(rows)[:-9], "The Parquet is not valid"),
        # 20 MiB of spaces in a few kB.
        (as_parquet(pd.DataFrame([GOOD | {"context": " " * 20 * 2**20}])), "unpacks to"),
    ):
        status, reply = post(world[0], content, kind)
        assert status == 400 and message in refused(status, reply), reply


def test_a_body_of_300_mib_is_never_held(world):
    def memory() -> int:
        return max(
            int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) for status in processes(world.pid)
        )

    before = memory()
    for size in (40 * 2**20, 300 * 2**20):
        for chunked in (False, True):
            assert send_zeros(world.address, size, chunked) in ("413", "closed")
    assert send_zeros(world.address, 300 * 2**20, True, length=5) in ("400", "413", "closed")
    assert memory() - before < 60 * 2**10
    assert send_zeros(world.address, 40 * 2**20, True) == "413"
    assert answers(world.address, {"inputs": [GOOD]})


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


def test_the_fuzz_finds_nothing(world):
    """A few hundred of its requests; docs/SERVING.md holds the outcome of 10,000."""
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--address", world.address]
    done = subprocess.run([*command, "--requests", "400"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| CSV |" in done.stdout


def test_sigterm_finishes_what_was_begun(world):
    """The last test: it ends the server."""
    address = world.address
    slow = {"inputs": [{"question": "What does the heart do?", "context": (LONG * 6)[:100_000]}]}
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(post, address, slow)
        time.sleep(0.3)
        os.kill(world.pid, signal.SIGTERM)
        status, text = begun.result()
    assert status == 200 and len(json.loads(text)["predictions"]) == 1
    with pytest.raises(OSError):
        for _ in range(100):
            post(address, {"inputs": [GOOD]})
            time.sleep(0.1)
