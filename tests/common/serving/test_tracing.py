"""Traces of served requests in MLflow: how many, what they say, and what they keep for themselves."""

import os

import mlflow
import pytest

from common.errors import UserError
from common.serving.observed import Seen
from common.serving.tracing import Tracing, tracing
from tests.support import stores

ASKED = [{"question": "Who hides?", "context": "The fox hides."}, {"question": "Why?", "context": "Ask it."}]
ANSWERS = [{"answer": "The fox", "score": 0.9}, {"answer": "", "score": 0.5}]


@pytest.fixture
def traces(tmp_path):
    """Write the trace of each request, and give what the store holds then: spans of one trace each, the oldest first."""

    def written(given, *seen):
        for each in seen:
            given.put(each, 0.25)
        given.finish(60)
        ids = [mlflow.get_experiment_by_name("served").experiment_id]
        found = mlflow.MlflowClient().search_traces(locations=ids, order_by=["timestamp_ms ASC"])
        return {trace.info.tags["request_id"]: trace for trace in found}

    with stores.in_force(tmp_path):
        mlflow.tracing.reset()
        yield written
        mlflow.tracing.reset()


def test_a_trace_says_what_was_asked_of_which_version_but_no_text(traces):
    good = Seen("good", "3", 2, "shop", 200, tokens=40, records=ASKED, answers=ANSWERS)
    found = traces(Tracing(1.0), good, Seen("bad", "3", status=400))
    span = found["good"].data.spans[0]
    assert (span.name, span.status.status_code.value) == ("invocations", "OK")
    assert span.end_time_ns - span.start_time_ns == 250_000_000
    about = {"request_id": "good", "version": "3", "status": 200, "rows": 2, "tokens": 40, "key": "shop"}
    assert about.items() <= span.attributes.items()
    assert span.outputs == {"answered": 1, "no_answer": 1} and found["good"].info.tags["version"] == "3"
    refused = found["bad"].data.spans[0]
    assert (refused.status.status_code.value, refused.attributes["status"]) == ("ERROR", 400)
    assert "tokens" not in refused.attributes and "key" not in refused.attributes
    assert not any(text in found["good"].to_json() for text in ("hides", "fox", "Why"))
    # Runs of this process, and of those that it starts, go where they went.
    assert "MLFLOW_EXPERIMENT_ID" not in os.environ


def test_it_keeps_texts_where_that_is_asked_for(traces):
    seen = Seen("texts", "3", 2, status=200, records=ASKED, answers=ANSWERS)
    (span,) = traces(Tracing(1.0, texts=True), seen)["texts"].data.spans
    assert span.inputs == ASKED and span.outputs == ANSWERS


def test_a_share_of_the_requests_is_traced_and_a_holder_of_a_key_may_ask_for_it():
    given = Tracing(0.2)
    assert 100 < sum(given.chooses(Seen("id"), b"") for _ in range(1000)) < 300
    rarely = Tracing(1e-12)
    assert rarely.chooses(Seen("id", key="shop"), b"1")
    assert not any(rarely.chooses(Seen("id", key=key), asked) for key, asked in (("", b"1"), ("shop", b"")))


def test_the_environment_says_whether_and_how():
    assert (
        tracing({}) is None
        and tracing({"SERVING_TRACE": "0"}) is None
        and tracing({"SERVING_TRACE": ""}) is None
    )
    assert isinstance(tracing({"SERVING_TRACE": "0.01"}), Tracing)
    for wrong in ("often", "nan", "-0.1", "1.1"):
        with pytest.raises(UserError, match="SERVING_TRACE is .* a share of the requests"):
            tracing({"SERVING_TRACE": wrong})
    with pytest.raises(UserError, match="SERVING_TRACE_TEXTS is 'yes'; write 1"):
        tracing({"SERVING_TRACE": "1", "SERVING_TRACE_TEXTS": "yes"})


def test_a_store_that_fails_breaks_nothing(monkeypatch, caplog):
    def away(*_):
        raise ConnectionError("the store is away")

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", away)
    given = Tracing(1.0)
    given.put(Seen("id", status=200), 0.1)
    given.finish(30)
    assert "Traces: some are left out: ConnectionError: the store is away" in caplog.text
