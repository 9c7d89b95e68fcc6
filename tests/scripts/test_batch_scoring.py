"""Thousands of rows by MLflow's own means: `mlflow models predict`, `load_model`, `mlflow.models.evaluate`, Spark."""

import json
import subprocess
import sys
import types
from importlib.util import find_spec

import mlflow
import pandas as pd
import pytest

from common.serving import model_logging
from common.tracking import runs
from tests.support import stores, trained
from tests.support.questions import EXAMPLES
from tests.support.texts import make_texts

ASKED = [{name: e[name] for name in ("question", "context")} for e in EXAMPLES]
REPEATS = 25
MANY = pd.DataFrame(ASKED * REPEATS)
"""200 rows: three requests of 64, and a part of one."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """URIs of (a question-answering model, a classifier)."""
    folder = tmp_path_factory.mktemp("batch")
    uris = []
    with stores.in_force(folder):
        for save, example in ((trained.save, ASKED[0]), (trained.save_classifier, {"text": "x"})):
            place = folder / save.__name__
            place.mkdir()
            bundle, base, *_ = save(place, tiny)
            with runs.start("batch", save.__name__, {}) as run:
                uris.append(model_logging.log_model(run, bundle, base, example, {}))
        yield uris


@pytest.fixture(scope="module")
def expected(world):
    """The answers to ASKED, repeated."""
    return list(mlflow.pyfunc.load_model(world[0]).predict(pd.DataFrame(ASKED))["answer"]) * REPEATS


def test_a_frame_of_many_rows_is_answered(world, expected):
    found = mlflow.pyfunc.load_model(world[0]).predict(MANY)
    assert list(found["answer"]) == expected and list(found.index) == list(MANY.index)


@pytest.mark.long
def test_a_frame_of_5000_rows_is_answered(world, expected):
    found = mlflow.pyfunc.load_model(world[0]).predict(pd.concat([MANY] * 25))
    assert list(found["answer"]) == expected * 25


@pytest.mark.long
def test_mlflow_models_predict_answers_many_rows_of_csv(world, expected, tmp_path):
    odd = pd.DataFrame([{"question": "NA", "context": 'He said "no",\nthen yes.'}])
    pd.concat([MANY, odd]).to_csv(tmp_path / "asked.csv", index=False)
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", world[0], "--env-manager", "local"]
    files = ["-t", "csv", "-i", str(tmp_path / "asked.csv"), "-o", str(tmp_path / "answers.json")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads((tmp_path / "answers.json").read_text())["predictions"]
    told = mlflow.pyfunc.load_model(world[0]).predict(odd)
    assert [row["answer"] for row in answers] == [*expected, *told["answer"]]


def test_mlflow_evaluates_question_answering(world, monkeypatch):
    """Its exact match of raw texts; where tiktoken and textstat are missing, something else counts tokens and grades."""
    counters = {
        "tiktoken": {"get_encoding": lambda _: types.SimpleNamespace(encode=str.split)},
        "textstat": {name: len for name in ("flesch_kincaid_grade", "automated_readability_index")},
    }
    for name, functions in counters.items():
        module = types.ModuleType(name)
        vars(module).update(functions, textstat=types.SimpleNamespace(**functions))
        monkeypatch.setitem(sys.modules, name, module)
    rows = MANY.assign(truth=[(e["answers"]["text"] or [""])[0] for e in EXAMPLES] * REPEATS)
    with mlflow.start_run():
        found = mlflow.models.evaluate(
            world[0], rows, targets="truth", predictions="answer", model_type="question-answering"
        )
    model = mlflow.pyfunc.load_model(world[0])
    right = model.predict(rows[["question", "context"]])["answer"] == rows["truth"]
    assert found.metrics["exact_match/v1"] == right.mean()


def test_mlflow_evaluates_a_classifier(world):
    """MLflow's evaluator takes one column: the labels."""
    model = mlflow.pyfunc.load_model(world[1])
    # Half of these texts have each label, whatever the weights drawn.
    rows = pd.DataFrame({"text": [e["text"] for e in make_texts(12)] * 10})
    labels = model.predict(rows)["label"].to_numpy()
    rows["truth"] = ["negative", *labels[1:]]
    with mlflow.start_run():
        found = mlflow.models.evaluate(
            lambda asked: model.predict(asked)["label"], rows, targets="truth", model_type="classifier"
        )
    assert found.metrics["accuracy_score"] == (labels == rows["truth"]).mean()


@pytest.mark.long
@pytest.mark.skipif(find_spec("pyspark") is None, reason="pyspark is not installed (it needs a JVM too)")
def test_spark_asks_it_as_a_function(world, expected, monkeypatch):
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import struct

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "500")
        .getOrCreate()
    )
    try:
        asked = mlflow.pyfunc.spark_udf(
            spark,
            world[0],
            env_manager="local",
            result_type="answer string, score double, start long, end long",
        )
        frame = spark.createDataFrame(MANY.reset_index().astype({"question": object, "context": object}))
        rows = frame.select("index", asked(struct("question", "context")).alias("found")).collect()
        found = {row["index"]: row["found"]["answer"] for row in rows}
        assert [found[i] for i in range(len(MANY))] == expected
    finally:
        spark.stop()
