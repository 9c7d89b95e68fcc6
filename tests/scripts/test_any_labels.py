"""Texts with labels of any kind, from a file to answers, through the scripts, on a tiny BERT."""

import csv
import json
import random

import mlflow
import pandas as pd
import pytest

from common.data import prepared
from common.registry import register
from tests.scripts.conftest import run_here
from tests.support import trained
from tests.support.server import served

# Words that the tiny BERT knows.
NEUTRAL = "the a on where who what do does".split()
TOPICS = {
    "World": "iceland lies ridge plates drift apart".split(),
    "Sports": "bees dance hive flowers angle sun".split(),
    "Business": "prize physics nobel shared husband curie".split(),
    "Sci/Tech": "heart pumps blood body minute seventy".split(),
}
FLAGS = (
    "--max_length", 48, "--batch_size", 8, "--num_train_epochs", 4, "--learning_rate", 0.01, "--logging_steps", 5,
)  # fmt: skip


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def news(n, seed):
    """`n` headlines whose words say what their topic is."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        topic = list(TOPICS)[i % 4]
        words = " ".join(rng.choices(TOPICS[topic], k=6))
        rows.append({"title": f"{i}", "text": f"The {words}.", "category": topic})
    return rows


def prepare(tmp_path, rows, *flags):
    """The folder of prepared data, made by the script of a train and a test file."""
    train, test = (
        write(tmp_path / f"{name}.csv", part) for name, part in zip(("train", "test"), rows, strict=True)
    )
    files = ("--train_file", train, "--test_file", test, "--output_dir", tmp_path / "data")
    done = run_here("prepare_data.py", "--source", "text", *files, *flags)
    return tmp_path / "data", done.stdout


def train(tiny, data, task, *flags, script="bert_fine_tuning_LoRA.py"):
    fixed = ("--task", task, "--model_checkpoint", tiny("bert"), "--data_dir", data, *FLAGS)
    return run_here(script, *fixed, *flags)


@pytest.mark.long
def test_four_topics_are_learned_compared_registered_and_served_under_the_name_of_the_data(
    tiny, store, tmp_path
):
    data, shown = prepare(tmp_path, (news(160, 1), news(40, 2)), "--name", "ag-news")
    assert "ag-news" in shown and "36 Business, 36 Sci/Tech, 36 Sports, 36 World" in shown
    # All weights, since random embeddings that stay as they are do not always tell four topics apart.
    flags = ("--class_weights", "balanced", "--num_train_epochs", 12, "--learning_rate", 0.003)
    done = train(tiny, data, "classification", *flags, script="bert_fine_tuning.py")
    assert "Standard on ag-news (40 test examples): accuracy" in done.stdout

    (run,) = mlflow.search_runs(experiment_names=["ag-news"], output_format="list")
    metrics = run.data.metrics
    assert run.data.params["class_weights"] == "balanced"
    assert run.data.tags["labels"] == "Business, Sci/Tech, Sports, World"
    # A quarter would be right by chance.
    assert metrics["test_accuracy"] > 80
    assert metrics["test_f1_macro_low"] <= metrics["test_f1_macro"] <= metrics["test_f1_macro_high"]
    predictions = mlflow.MlflowClient().download_artifacts(run.info.run_id, "predictions", tmp_path)
    with open(f"{predictions}/per_class.csv", newline="", encoding="utf-8") as file:
        assert [row["support"] for row in csv.DictReader(file)] == ["10"] * 4

    compared = run_here("compare.py", "--experiment_name", "ag-news", "--output_dir", tmp_path / "compared")
    assert "ag-news (4 labels), 40 test texts" in compared.stdout and "macro-F1 [95%]" in compared.stdout

    done = run_here("register_best.py", "--experiment_name", "ag-news")
    assert "ag-news version 1, champion" in done.stdout and "models:/ag-news@champion" in done.stdout
    page = mlflow.MlflowClient().get_model_version("ag-news", "1").description
    assert "Labels: Business, Sci/Tech, Sports, World." in page
    model = mlflow.pyfunc.load_model("models:/ag-news@champion")
    rows = json.loads(open(f"{predictions}/test.json").read())
    test = prepared.load(data)[0]["test"].to_list()
    given = model.predict(pd.DataFrame({"text": [e["text"] for e in test]}), params={"top_k": 4})
    assert list(given["label"]) == [row["prediction"] for row in rows]
    assert {entry["label"] for entry in given["alternatives"][0]} | {given["label"][0]} == set(TOPICS)


@pytest.mark.long
def test_topics_are_served_by_mlflows_server(tiny, store, tmp_path):
    data, _ = prepare(tmp_path, (news(80, 1), news(20, 2)), "--name", "ag-news")
    train(tiny, data, "classification", "--num_train_epochs", 1)
    with trained.checked_here():
        assert register.register_best("ag-news").name == "ag-news"
    with served(tmp_path, "models:/ag-news@champion") as (address, _, _):
        import requests

        body = {"dataframe_records": [{"text": "Bees dance in the hive"}], "params": {"top_k": 4}}
        answer = requests.post(f"{address}/invocations", json=body, timeout=60)
        (row,) = answer.json()["predictions"]
        assert {row["label"], *(entry["label"] for entry in row["alternatives"])} == set(TOPICS)
        wrong = requests.post(f"{address}/invocations", json={"inputs": [{"txt": "a"}]}, timeout=60)
        assert wrong.status_code == 400


def feelings(n, seed):
    """`n` texts with the words of one topic, of two, or of none."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        topics = [topic for k, topic in enumerate(TOPICS) if (i >> k) & 1]
        words = [word for topic in topics for word in rng.choices(TOPICS[topic], k=4)]
        words += rng.choices(NEUTRAL, k=0 if words else 6)
        rows.append({"text": " ".join(words), "labels": "|".join(topics)})
    return rows


@pytest.mark.long
def test_any_number_of_labels_is_learned_registered_and_answered(tiny, store, tmp_path):
    flags = ("--multi_label", "--name", "topics")
    data, shown = prepare(tmp_path, (feelings(240, 1), feelings(48, 2)), *flags)
    assert "without a label" in shown
    refused = run_here(
        "bert_fine_tuning_LoRA.py", "--task", "classification", "--data_dir", data,
        "--model_checkpoint", tiny("bert"), check=False,
    )  # fmt: skip
    assert refused.returncode == 2 and "'multi-label text'" in refused.stderr and "--task" in refused.stderr
    done = train(tiny, data, "multi-label-classification", "--num_train_epochs", 8)
    assert "sample F1" in done.stdout and "subset accuracy" in done.stdout
    (run,) = mlflow.search_runs(experiment_names=["topics"], output_format="list")
    metrics = run.data.metrics
    for name in ("f1_samples", "subset_accuracy", "f1_micro", "f1_macro"):
        assert metrics[f"test_{name}_low"] <= metrics[f"test_{name}"] <= metrics[f"test_{name}_high"]
    assert metrics["test_f1_micro"] > 60
    done = register.register_best("topics")
    assert (done.name, done.alias) == ("topics", "champion")
    assert "48 test texts are answered as in training." in done.notes
    test = prepared.load(data)[0]["test"].to_list()
    given = mlflow.pyfunc.load_model("models:/topics@champion").predict(
        pd.DataFrame({"text": [e["text"] for e in test]})
    )
    rows = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/predictions/test.json")
    assert [set(labels) for labels in given["labels"]] == [set(row["prediction"]) for row in rows]
    assert (
        "sample F1"
        in run_here("compare.py", "--experiment_name", "topics", "--output_dir", tmp_path / "c").stdout
    )


def inferences(n, seed):
    """`n` pairs: the second text repeats words of the first, or has other ones."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        topic, other = rng.sample(list(TOPICS), 2)
        same = i % 2 == 0
        first, second = rng.choices(TOPICS[topic], k=5), rng.choices(TOPICS[topic if same else other], k=3)
        label = "entailment" if same else "contradiction"
        rows.append({"premise": " ".join(first), "hypothesis": " ".join(second), "gold_label": label})
    return rows


@pytest.mark.long
def test_pairs_of_texts_are_learned_and_answered_with_both(tiny, store, tmp_path):
    data, shown = prepare(tmp_path, (inferences(160, 1), inferences(40, 2)), "--name", "nli")
    assert "pairs of texts" in shown
    train(tiny, data, "classification", "--num_train_epochs", 1)
    with trained.checked_here():
        done = register.register_best("nli")
    assert "40 test texts are answered as in training." in done.notes
    model = mlflow.pyfunc.load_model("models:/nli@champion")
    assert model.metadata.get_input_schema().input_names() == ["text", "text_pair"]
    (run,) = mlflow.search_runs(experiment_names=["nli"], output_format="list")
    rows = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/predictions/test.json")
    test = prepared.load(data)[0]["test"].to_pandas()
    given = model.predict(test[["text", "text_pair"]])
    assert list(given["label"]) == [row["prediction"] for row in rows]
    assert given["score"].to_list() == pytest.approx([row["probability"] for row in rows], abs=1e-4)
    # The second text counts.
    swapped = model.predict(pd.DataFrame({"text": test["text"], "text_pair": test["text"]}))
    assert list(swapped["score"]) != pytest.approx(list(given["score"]), abs=2e-5)
