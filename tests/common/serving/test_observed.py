"""What is counted, by whom, and what happens without prometheus_client."""

import os
import subprocess
import sys

import prometheus_client
import pytest

from common.paths import ROOT
from common.serving.observed import Observed, Seen, outcome


def values(found):
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in found.text()[0].decode().splitlines()
        if line.startswith("suite_") and "_created" not in line
    }


def test_what_is_counted():
    found = Observed(prometheus_client)
    found.answers("3")
    found.finished("/invocations", 200, 0.03)
    found.finished("/invocations", 400, 0.001)
    found.finished("/invocations", 500, 0.001)
    found.finished("/secret-of-a-client", 404, 0.001)
    found.computed(3, 5, 400, 512)
    found.answered([{"answer": "nobody asked"}])
    found.current.set(seen := Seen("id"))
    found.answered([{"answer": "x"}, {"answer": ""}, {"answer": "", "abstained": True}, {"label": "a"}])
    counted = values(found)
    assert counted['suite_requests_total{path="/invocations",status="200"}'] == 1
    assert counted['suite_requests_total{path="other",status="404"}'] == 1
    assert (
        counted['suite_errors_total{kind="bad_request"}'] == 2
        and counted['suite_errors_total{kind="server"}'] == 1
    )
    assert counted["suite_request_seconds_count"] == 3
    assert counted['suite_request_seconds_bucket{le="0.02"}'] == 2
    assert counted["suite_pass_rows_sum"] == 5 and counted["suite_pass_requests_sum"] == 3
    assert (
        counted['suite_tokens_total{kind="text"}'] == 400
        and counted['suite_tokens_total{kind="padding"}'] == 112
    )
    assert [
        counted[f'suite_rows_total{{outcome="{o}"}}'] for o in ("answered", "no_answer", "abstained")
    ] == [2, 1, 1]
    assert seen.rows == 4
    assert "secret" not in found.text()[0].decode()
    found.answers("4")
    counted = values(found)
    assert counted['suite_model{version="3"}'] == 0 and counted['suite_model{version="4"}'] == 1


def test_texts_stay_in_the_memory_only_where_they_are_wanted():
    found, records, answers = Observed(None), [{"question": "Who?"}], [{"answer": "x"}]
    for kept in (False, True):
        found.current.set(seen := Seen("id", kept=kept))
        found.received(records)
        found.answered(answers)
        assert (seen.records, seen.answers) == ((records, answers) if kept else ((), ()))


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"answer": "a", "abstained": False}, "answered"),
        ({"label": "", "abstained": True}, "abstained"),
        ({"answers": []}, "answered"),
        ({"labels": []}, "answered"),
    ],
)
def test_outcomes(row, name):
    assert outcome(row) == name


def test_nothing_is_counted_without_prometheus_client():
    found = Observed(None)
    found.answers("3")
    found.finished("/invocations", 500, 1.0)
    found.computed(1, 1, 1, 1)
    found.current.set(seen := Seen("id"))
    found.answered([{"answer": "x"}])
    assert found.text() is None and seen.rows == 1


WORKER = """
import sys
sys.argv = ["/usr/bin/uvicorn"]
from common.serving.observed import observed
observed().finished("/invocations", 200, 0.1)
print(observed().text()[0].decode())
"""


def test_processes_count_together_in_a_folder(tmp_path):
    """As the workers of one server do; the folder is made."""
    shared = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "counts"), "PYTHONPATH": str(ROOT)}
    for i in (1, 2):
        done = subprocess.run([sys.executable, "-c", WORKER], env=shared, capture_output=True, text=True)
        assert f'suite_requests_total{{path="/invocations",status="200"}} {i}.0' in done.stdout, done.stderr


def test_outside_of_a_server_nothing_is_counted():
    code = "from common.serving.observed import observed; print(observed().text())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "None"
