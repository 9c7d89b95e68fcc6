import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.types import Schema
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from common import graphemes
from common.models import bundles, cpu_kernels, virtual_tokens
from common.paths import ROOT
from common.serving import extractive_qa, model_logging, packaging, question_requests
from common.tracking import experiments, runs
from tests.support import odd, stores, trained
from tests.support.questions import EXAMPLES

ASKED = [{name: e[name] for name in ("question", "context")} for e in EXAMPLES]
LONG = {"question": "Who shared the prize?", "context": " ".join(e["context"] for e in EXAMPLES) * 30}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    with stores.in_force(folder):
        yield folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny):
    """(bundle, base, model, tokenizer, info) of a LoRA model."""
    return trained.save(tmp_path_factory.mktemp("saved"), tiny)


@pytest.fixture(scope="module")
def answerer(saved):
    return extractive_qa.Answerer(saved[0], saved[1])


@pytest.fixture(scope="module")
def served(store, saved):
    """(the model as it is loaded from the store, its URI, its run's id)."""
    with runs.start("serving", "run", {}) as run, pytest.MonkeyPatch.context() as patch:
        # A second copy of the weights would lie beside those that were trained.
        patch.setattr(mlflow.pyfunc, "load_model", lambda *_, **__: pytest.fail("loaded where it is logged"))
        patch.setattr(mlflow.models.model._logger, "warning", pytest.fail)
        uri = model_logging.log_model(run, saved[0], saved[1], ASKED[0], {"test_f1": 50.0})
    return mlflow.pyfunc.load_model(uri), uri, run.id


def test_the_example_that_is_stored_with_a_model_is_answered(served):
    model = served[0]
    example = model.input_example
    assert example.to_dict("records") == [ASKED[0]]
    answers = model.predict(example)
    assert len(answers) == 1 and {"answer", "score", "start", "end"} <= set(answers)


@pytest.fixture
def in_a_server(monkeypatch):
    """This process has the command line of MLflow's server."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/uvicorn", "--port", "5001"])


def frame(rows):
    return pd.DataFrame(rows)


def test_no_answer_ends_inside_a_character(answerer):
    """The tiny BERT drops accents, as uncased BERTs do: "Marié" with its accent apart was answered "Marie"."""
    contexts = [
        "In 1903 Marie\u0301 Curie shared the Nobel Prize in Physics.",
        " ".join(["The heart", *odd.CLUSTERS, "pumps"]),
        "".join(["body", *odd.CLUSTERS[::-1], "Iceland"]),
    ]
    records = [{"question": "What does the heart pump?", "context": context} for context in contexts]
    # All spans of at most two tokens.
    answers = answerer.answer(records, top_k=100, max_answer_length=2, null_threshold=100.0)
    for record, ranked in zip(records, answers, strict=True):
        context, (before, after) = record["context"], graphemes.cuts(record["context"])
        found = [answer for answer in ranked if answer["start"] >= 0]
        assert len(found) > 5
        for answer in found:
            assert answer["answer"] == context[answer["start"] : answer["end"]]
            assert (before[answer["start"]], after[answer["end"]]) == (answer["start"], answer["end"])
        assert len({(a["start"], a["end"]) for a in found}) == len(found)
        if "Marie" in context:
            assert "Marie\u0301" in {answer["answer"] for answer in found}


def test_answers_are_those_of_evaluation(saved, answerer):
    _, _, model, tokenizer, info = saved
    examples = [*EXAMPLES, LONG | {"id": "long", "answers": {"text": [], "answer_start": []}}]
    answers = answerer.answer([*ASKED, LONG], top_k=3)
    for p, ranked in zip(trained.predict(model, tokenizer, info, examples), answers, strict=True):
        assert (ranked[0]["answer"], ranked[0]["start"], ranked[0]["end"]) == (p.text, p.start, p.end)
        assert ranked[0]["score"] == pytest.approx(p.probability, abs=1e-4)
        assert len(ranked) == 3 and len({(a["start"], a["end"]) for a in ranked}) == 3


def test_start_and_end_cut_the_answer_out(answerer):
    for record, ranked in zip([*ASKED, LONG], answerer.answer([*ASKED, LONG], top_k=100), strict=True):
        for answer in ranked:
            there = answer["start"] >= 0
            assert answer["answer"] == (record["context"][answer["start"] : answer["end"]] if there else "")
            assert 0 <= answer["score"] <= 1


def test_parameters(answerer):
    always = answerer.answer(ASKED, null_threshold=1e9)
    assert all(ranked[0]["answer"] for ranked in always)
    assert not any(ranked[0]["answer"] for ranked in answerer.answer(ASKED, null_threshold=-1e9))
    for ranked in answerer.answer(ASKED, top_k=50, max_answer_length=1):
        assert all(len(answer["answer"].split()) <= 1 for answer in ranked)


def test_a_model_without_threshold_always_answers(tmp_path, tiny):
    bundle, base, *_ = trained.save(tmp_path, tiny, version="v1.1")
    assert all(
        a["start"] >= 0
        for ranked in extractive_qa.Answerer(bundle, base).answer(ASKED, top_k=20)
        for a in ranked
    )


def test_many_at_once_get_each_their_own_answer(answerer):
    requests = [[record] for record in [*ASKED, LONG]] * 6
    expected = [answerer.answer(request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        for got, want in zip(pool.map(answerer.answer, requests), expected, strict=True):
            assert [a[0]["answer"] for a in got] == [a[0]["answer"] for a in want]


def test_the_logged_model_answers_as_the_answerer(served, answerer):
    rows = served[0].predict(frame([*ASKED, LONG]))
    assert list(rows) == ["answer", "score", "start", "end"]
    rows = served[0].predict(frame([*ASKED, LONG]), params={"raw_scores": True})
    assert rows.to_dict("records") == [ranked[0] for ranked in answerer.answer([*ASKED, LONG])]
    rows = served[0].predict(frame(ASKED), params={"top_k": 3, "raw_scores": True}).to_dict("records")
    assert [[row, *row.pop("alternatives")] for row in rows] == answerer.answer(ASKED, top_k=3)
    given = {"max_answer_length": None, "null_threshold": None, "top_k": None}
    assert served[0].predict(frame(ASKED), params=given).equals(served[0].predict(frame(ASKED)))
    assert list(served[0].predict(frame(ASKED)[:0])) == ["answer", "score", "start", "end"]


def test_answers_keep_the_index_of_what_was_asked(served):
    asked = frame(ASKED[:3]).set_axis(["c", "a", "b"])
    plain = served[0].predict(frame(ASKED[:3]))
    found = served[0].predict(asked)
    assert list(found.index) == ["c", "a", "b"]
    pd.testing.assert_frame_equal(found.reset_index(drop=True), plain)


def test_what_is_not_known_is_refused_from_python_too(served):
    """Where MLflow lets it through; `load_model(...).predict` drops it with a warning."""
    model = served[0].unwrap_python_model()
    with pytest.raises(MlflowException, match="'topk', which is not known; did you mean 'top_k'"):
        model.predict(None, frame([GOOD]), {"topk": 2})
    with pytest.raises(MlflowException, match="'contxt', which is not known; did you mean 'context'"):
        model.predict(None, frame([GOOD | {"contxt": "x"}]))
    twice = pd.DataFrame([["a", "b", "c"]], columns=["question", "context", "context"])
    with pytest.raises(MlflowException, match="a column occurs twice"):
        model.predict(None, twice)


@pytest.mark.long
def test_mlflow_models_predict_refuses_what_the_server_refuses(served, tmp_path):
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps({"inputs": [ASKED[0]], "parameters": {"top_k": 2}}))
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", served[1], "--env-manager", "local"]
    done = subprocess.run(
        [*command, "-t", "json", "-i", str(asked)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode and "did you mean 'params'?" in done.stderr + done.stdout


def test_what_is_logged(served, store):
    model, uri, run_id = served
    logged = mlflow.get_logged_model(uri.removeprefix("models:/"))
    run = mlflow.get_run(run_id)
    assert (logged.source_run_id, logged.experiment_id, logged.status) == (
        run_id,
        run.info.experiment_id,
        "READY",
    )
    assert [(m.key, m.value) for m in logged.metrics] == [("test_f1", 50.0)]
    folder = Path(urlparse(logged.artifact_location).path)
    # Loading it from where it lies leaves bytecode there, unless Python is forbidden to write it.
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    assert {file.suffix for file in files} == {"", ".py", ".txt", ".json", ".yaml", ".safetensors"}
    size = sum(file.stat().st_size for file in files)
    assert size < 325_000 and not list(folder.rglob("base"))
    (package,) = folder.glob("code/suite_*")
    names = {file.relative_to(package).as_posix() for file in package.rglob("*.py")}
    assert {"__init__.py", "serving/runtime.py", "tasks/extractive_qa/spans.py", "models/bundles.py"} <= names
    assert {name.partition("/")[0] for name in names if "/" in name} == {
        "models",
        "scoring",
        "serving",
        "tasks",
    }
    assert all("==" in line for line in (folder / "requirements.txt").read_text().split())
    assert model.metadata.signature.outputs.to_dict()[-1]["required"] is False
    assert Schema.from_json(model.metadata.signature.outputs.to_json()) == extractive_qa.SIGNATURE.outputs


def test_six_adapters_share_one_base(served, saved, store, tmp_path, tiny):
    other, base, *_ = trained.save(tmp_path, tiny, "ia3", seed=3)
    with runs.start("serving", "another", {}) as run:
        model_logging.log_model(run, other, base, ASKED[0], {})
    assert bundles.read_reference(other) == bundles.read_reference(saved[0])
    assert len(list((store / "mlruns" / "shared-bases").rglob("model.safetensors"))) == 1


def test_a_base_that_was_left_unfinished_is_completed(store, tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    client = mlflow.MlflowClient()
    experiment = experiments.experiment_id(model_logging.SHARED_BASES)
    left = client.create_run(experiment, tags={"base_fingerprint": "f" * 64})
    uri = model_logging.shared_base(tmp_path / "base", "f" * 64)
    assert uri == f"runs:/{left.info.run_id}/base" == model_logging.shared_base(tmp_path / "base", "f" * 64)
    assert client.get_run(left.info.run_id).info.status == "FINISHED"


def test_two_versions_answer_each_with_their_own_code(served, saved, store, monkeypatch):
    original = model_logging.copy_of_package

    def altered(folder, modules):
        package = original(folder, modules)
        file = package / "serving" / "question_requests.py"
        text = file.read_text()
        assert text.count("MAX_ROWS = 256") == 1
        file.write_text(text.replace("MAX_ROWS = 256", "MAX_ROWS = 3"))
        monkeypatch.setattr(packaging, "PACKAGE", package)
        return package.rename(folder / packaging.name_of(package.rglob("*.py")))

    monkeypatch.setattr(model_logging, "copy_of_package", altered)
    with runs.start("serving", "altered", {}) as run:
        uri = model_logging.log_model(run, saved[0], saved[1], ASKED[0], {})
    new, old = mlflow.pyfunc.load_model(uri), mlflow.pyfunc.load_model(served[1])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["uvicorn"])
        with pytest.raises(MlflowException, match="at most 3"):
            new.predict(frame(ASKED))
    for first in (old, served[0]):
        assert len(first.predict(frame(ASKED))) == len(ASKED)


@pytest.mark.parametrize("module", [cpu_kernels, virtual_tokens])
def test_a_loaded_models_code_leaves_the_attention_of_this_one_alone(module, store, tiny, tmp_path):
    bundle, base, *_ = trained.save(tmp_path, tiny, "prefix-tuning")
    with runs.start("serving", "prefix", {}) as run:
        mlflow.pyfunc.load_model(model_logging.log_model(run, bundle, base, ASKED[0], {}))
    assert any(name.startswith("suite_") and name.endswith(".virtual_tokens") for name in sys.modules)
    ours = cpu_kernels.attention if module is cpu_kernels else virtual_tokens.attention_with_prefix
    assert ALL_ATTENTION_FUNCTIONS[module.ATTENTION] is ours


GOOD = {"question": "Who?", "context": "Marie Curie."}
BAD_ROWS = {
    "row 0: question must be a string, not null": GOOD | {"question": None},
    "row 0: question must be a string, not float": GOOD | {"question": float("nan")},
    "row 0: context must be a string, not int": GOOD | {"context": 5},
    "row 0: question must be a string, not list": GOOD | {"question": ["Who?"]},
    "row 0: question is empty": GOOD | {"question": " \n"},
    "row 0: context is empty": GOOD | {"context": ""},
    "row 0: context holds a lone surrogate": GOOD | {"context": "Marie \ud800 Curie"},
    "row 0: question has 2001 characters; at most 2000": GOOD | {"question": "w" * 2001},
    "row 0: context has 200001 characters; at most 200000": GOOD | {"context": "w" * 200_001},
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_bad_rows_are_refused_in_plain_words(reason, served, in_a_server):
    model = served[0].unwrap_python_model()
    with pytest.raises(MlflowException) as caught:
        model.predict(None, pd.DataFrame([BAD_ROWS[reason]], dtype=object))
    assert reason in str(caught.value) and caught.value.get_http_status_code() == 400


def test_limits_of_requests_hold_in_a_server_alone(served, monkeypatch):
    long = GOOD | {"question": "Who? " * 500}
    rows = [*ASKED * 40, long]
    found = served[0].predict(frame(rows))
    assert len(found) == len(rows) > 256
    few = served[0].predict(frame([*ASKED, long]))
    assert list(found["answer"][-8:]) == [*few["answer"][1:8], few["answer"][8]]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/uvicorn"])
    for asked, reason in ((rows, "321 rows in one request"), ([long], "question has 2500 characters")):
        with pytest.raises(MlflowException, match=reason):
            served[0].predict(frame(asked))


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"top_k": 0}, "top_k is 0; choose 1 to 100"),
        ({"top_k": 101}, "top_k is 101"),
        ({"max_answer_length": 0}, "max_answer_length is 0; choose 1 to 500"),
        ({"max_answer_length": -1}, "max_answer_length is -1"),
        ({"null_threshold": float("nan")}, "null_threshold must be a number"),
        ({"top_k": "three"}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": [1]}, "top_k"),
    ],
)
def test_bad_parameters_are_refused_in_plain_words(params, reason, served):
    with pytest.raises(MlflowException) as caught:
        served[0].predict(frame([GOOD]), params=params)
    assert reason in str(caught.value) and caught.value.get_http_status_code() == 400


def test_odd_but_good_texts_are_answered(answerer):
    odd = [
        "Zoë ate 🍎🍏 in 東京.",
        "a\u0301" * 300,
        "x" * 5000,
        "line\r\nline\ttab\x00nul",
        "\u202eright to left",
        ".",
    ]
    records = [
        {"question": question, "context": text} for text in odd for question in ("What?", "🍎", "w " * 999)
    ]
    for record, ranked in zip(records, answerer.answer(records), strict=True):
        answer = ranked[0]
        assert record["context"][answer["start"] : answer["end"]] == answer["answer"] or answer["start"] == -1
        assert np.isfinite(answer["score"])


def test_the_longest_texts_are_answered_within_the_servers_patience(answerer):
    context = ("The heart pumps blood. " * 10_000)[: question_requests.MAX_CONTEXT]
    (ranked,) = answerer.answer([{"question": "What?" * 400, "context": context}])
    assert ranked[0]["score"] > 0


@pytest.mark.long
def test_loading_and_saving_print_nothing(tmp_path, saved, tiny):
    code = (
        "import sys; from pathlib import Path; from common.models import base as models, saving; from common.serving import extractive_qa\n"
        "extractive_qa.Answerer(sys.argv[1], sys.argv[2])\n"
        "saving.save_base(models.resolve_checkpoint(sys.argv[2]), Path(sys.argv[3]))\n"
    )
    command = [sys.executable, "-c", code, str(saved[0]), str(saved[1]), str(tmp_path / "base")]
    env = {
        "PATH": "/usr/bin:/bin",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stdout and not done.stderr


def test_whoever_serves_sets_the_limit_of_a_context(served):
    model = mlflow.pyfunc.load_model(served[1], model_config={"max_context": 20})
    assert len(model.predict(frame([GOOD]))) == 1
    with pytest.raises(MlflowException, match="context has 21 characters; at most 20"):
        model.predict(frame([GOOD | {"context": "w" * 21}]))
    with pytest.raises(MlflowException, match="max_context is 0"):
        mlflow.pyfunc.load_model(served[1], model_config={"max_context": 0})
