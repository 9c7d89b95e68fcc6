"""Adapters of two data sets, and a classifier, in one real `mlflow models serve`, with room for two adapters at a time."""

import json
import random
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import mlflow
import pandas as pd
import pytest

from common.data import prepared
from common.serving import classification, extractive_qa, held_models, model_logging, runtime, shared_bases
from common.tracking import runs
from tests.support import stores, trained
from tests.support.server import request, served

pytestmark = pytest.mark.long

ADAPTERS = ("shop-qa", "team-a", "team-b")
TEXT = {"text": "The heart pumps blood through the body about seventy times a minute."}


class World(NamedTuple):
    address: str
    log: Path
    questions: dict[str, list[dict]]
    expected: dict[tuple[str, str], list[str]]
    """(name, version) → what it answers to its questions, alone."""
    label: dict
    most: float
    """Bytes of weights."""


def registered(name, run_id):
    (model,) = mlflow.search_logged_models(
        filter_string=f"source_run_id = '{run_id}'",
        experiment_ids=[mlflow.get_run(run_id).info.experiment_id],
        output_format="list",
    )
    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(name, f"models:/{model.model_id}", run_id).version
    if str(version) == "1":
        client.set_registered_model_alias(name, "champion", "1")
    return model


def room(folder, classifier):
    """Bytes of weights of the classifier and of two adapters on one base, and of half an adapter more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["uvicorn", "app"])
        patch.setenv(shared_bases.MODELS, "any")
        held = [
            extractive_qa.Answerer(folder / f"lora-{seed}" / "bundle", folder / "lora-0" / "base")
            for seed in (0, 1)
        ]
        one, two = (sum(held_models.weights_in(part).values()) for part in (held[:1], held))
        other = sum(held_models.weights_in(classification.Classifier(*classifier)).values())
        runtime.cores_of_process.cache_clear()
    return other + two + (two - one) / 2


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("on-demand")
    (folder / "shop").mkdir()
    with stores.in_force(folder):
        questions, expected = {}, {}
        for place, version, names in (
            (folder, "v2.0", ("team-a", "team-b", "team-b")),
            (folder / "shop", "v1.1", ("shop-qa",)),
        ):
            record = trained.prepare_data(place, version)
            examples = prepared.load(place / "data")[0]["test"].to_list()
            for seed, name in enumerate(names, 10 * (place != folder)):
                run_id = trained.log_run(place, tiny, record, examples, experiment=name, seed=seed)
                registered(name, run_id)
                rows = mlflow.artifacts.load_dict(f"runs:/{run_id}/predictions/test.json")
                number = "2" if (name, "1") in expected else "1"
                expected[name, number] = [row["prediction"] for row in rows]
            for name in names:
                questions[name] = [{n: e[n] for n in ("question", "context")} for e in examples]
        assert expected["team-b", "1"] != expected["team-b", "2"] != expected["team-a", "1"]
        # A version whose file was changed, and a model without the alias.
        run_id = trained.log_run(folder, tiny, record, examples, experiment="broken", seed=5)
        stored = Path(
            mlflow.artifacts.download_artifacts(f"models:/{registered('team-broken', run_id).model_id}")
        )
        with (stored / "artifacts" / "bundle" / "bundle.json").open("a") as file:
            file.write(" ")
        mlflow.MlflowClient().create_registered_model("team-new")
        (folder / "labels").mkdir()
        bundle, base, *_ = trained.save_classifier(folder / "labels", tiny)
        most = room(folder, (bundle, base))
        with runs.start("reviews", "run", {}) as run:
            model_logging.log_model(run, bundle, base, TEXT, {"test_accuracy": 50.0})
        registered("reviews", run.id)
        (label,) = (
            mlflow.pyfunc.load_model("models:/reviews/1").predict(pd.DataFrame([TEXT])).to_dict("records")
        )
        environment = {
            "SERVING_MODELS": "shop-qa@champion team-*@champion",
            "SERVING_MODELS_MIB": str(most / 2**20),
            "SERVING_ACCESS_LOG": str(folder / "access.log"),
        }
        with served(folder, "models:/reviews@champion", **environment) as (address, log, _):
            waited(lambda: request(f"{address}/ready")[0] == 200)
            yield World(address, log, questions, expected, label, most)


def waited(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def ask(world, name, rows=None):
    """(status, headers, text); rows: by default the model's questions, or a text for the one that the server started with."""
    named = {"X_Model": name} if name else {}
    return request(
        f"{world.address}/invocations", {"inputs": rows or world.questions.get(name, [TEXT])}, **named
    )


def check(world, name):
    """A model answers as it does alone, and says which it is; gives its version."""
    status, headers, text = ask(world, name)
    assert status == 200, text
    found = json.loads(text)["predictions"]
    if name in ADAPTERS:
        assert headers["x-model"] == name
        assert [row["answer"] for row in found] == world.expected[name, headers["x-model-version"]]
    else:
        assert ("x-model" in headers) == bool(name)
        assert found == [
            {"label": world.label["label"], "score": pytest.approx(world.label["score"], abs=1e-4)}
        ]
    return headers["x-model-version"]


def counters(world):
    text = request(f"{world.address}/metrics")[2]
    found = re.findall(r"^(suite_model_\w+?)(?:\{model=\"(.*?)\"\})? (\S+)$", text, re.MULTILINE)
    return {(name.removeprefix("suite_model_"), model): float(value) for name, model, value in found}


def test_models_answer_as_alone_and_the_oldest_goes_where_there_is_no_room(world):
    for name in ("", "reviews", *ADAPTERS, "", "team-b"):
        assert check(world, name) == "1"
    found = counters(world)
    assert [found["load_seconds_count", name] for name in ADAPTERS] == [1, 1, 1]
    assert found["evictions_total", "shop-qa"] == 1 and found["bytes", "shop-qa"] == 0
    assert ("evictions_total", "team-a") not in found
    assert (
        0 < found["bytes", "team-a"] < found["bytes_of_all", ""] / 2
        and found["bytes_of_all", ""] <= world.most
    )
    check(world, "shop-qa")
    found = counters(world)
    assert found["load_seconds_count", "shop-qa"] == 2 and found["evictions_total", "team-a"] == 1
    lines = [json.loads(line) for line in (world.log.parent / "access.log").read_text().splitlines()]
    assert [line.get("model") for line in lines if line["path"] == "/invocations"] == [
        None, "reviews", *ADAPTERS, None, "team-b", "shop-qa",
    ]  # fmt: skip


def test_many_at_once_lose_and_mix_nothing(world):
    asked = [*ADAPTERS, ""] * 10
    random.Random(0).shuffle(asked)
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(lambda name: check(world, name), asked)) == {"1"}
    assert counters(world)["bytes_of_all", ""] <= world.most


def test_what_cannot_be_answered_is_said_and_the_server_goes_on(world):
    status, headers, text = ask(world, "team-c", [TEXT])
    assert status == 404 and "x-model" not in headers
    assert "this server answers with shop-qa, team-a, team-b, team-broken, and without X-Model" in text
    assert ask(world, "team-new", [TEXT])[0] == 404
    status, headers, text = ask(world, "team-broken", [TEXT])
    assert status == 503 and headers["retry-after"] == "60" and "the server's log says why" in text
    assert headers["x-model"] == "team-broken" and "x-model-version" not in headers
    assert "bundle.json was changed" in world.log.read_text()
    # Each model has columns of its own.
    status, _, text = ask(world, "team-a", [TEXT])
    assert status == 400 and "question" in text
    assert ask(world, "", world.questions["team-a"])[0] == 400
    for name in ("", *ADAPTERS):
        check(world, name)
    assert "Traceback" not in world.log.read_text()


def test_promotions_are_followed(world):
    check(world, "team-b")
    mlflow.MlflowClient().set_registered_model_alias("team-b", "champion", "2")
    waited(lambda: check(world, "team-b") == "2")
    assert check(world, "team-a") == "1"
