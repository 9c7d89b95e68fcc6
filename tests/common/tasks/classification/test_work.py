"""Classification without training: scores, figures, stored models, serving and refusals."""

import csv
import itertools
import json
import sys
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException

from common.reports import run_figures
from common.scoring import bootstrap
from common.serving import classification as classifying
from common.serving import model_logging
from common.tasks.batching import Collator
from common.tasks.classification import work
from common.tasks.classification.texts import join, predict_logits
from common.tasks.table import TASKS
from common.tracking import runs
from common.training.results import write_extras
from tests.support import stores, trained
from tests.support.texts import make_texts

TASK = TASKS["classification"]
EXAMPLES = [{"id": f"t{i}"} | row for i, row in enumerate(make_texts(12))]
ASKED = [{"text": e["text"]} for e in EXAMPLES]
LONG = {"text": "The heart pumps blood. " * 200}
NAMES = ("negative", "positive")


def predictions(labels, classes=2):
    """Predictions of these classes, each with the probability 0.9."""
    names = tuple(f"c{i}" for i in range(classes)) if classes > 2 else NAMES
    rest = 0.1 / (classes - 1)
    return [
        work.Prediction(label, names, np.where(np.arange(classes) == label, 0.9, rest)) for label in labels
    ]


def test_figures_are_in_percent_and_each_example_has_its_score():
    labels = [0, 0, 0, 1, 1, 1]
    examples = [{"label": label} for label in labels]
    figures, each = work.score(predictions([0, 0, 1, 1, 1, 0]), examples)
    assert figures["accuracy"] == pytest.approx(200 / 3) and figures["f1"] == pytest.approx(200 / 3)
    assert figures["f1_low"] < figures["f1"] < figures["f1_high"]
    assert figures["f1_macro"] == pytest.approx(200 / 3)
    three, _ = work.score(predictions([0, 2, 1], classes=3), [{"label": 0}, {"label": 1}, {"label": 2}])
    assert "f1" not in three and three["f1_macro"] == pytest.approx(100 / 3)
    assert each["accuracy"].tolist() == [1, 1, 0, 1, 1, 0]
    assert bootstrap.bootstrap_interval(each["accuracy"])[0] < 2 / 3


def test_what_is_kept_of_a_run(tmp_path):
    made, examples = predictions([1, 0, 1]), [{"label": 1}, {"label": 1}, {"label": 0}]
    assert TASK.row(made[1], examples[1]) == {
        "prediction": "negative",
        "label": "positive",
        "probability": 0.9,
        "probabilities": {"negative": 0.9, "positive": 0.1},
    }
    write_extras(TASK.extras(made, examples), tmp_path)
    assert json.loads((tmp_path / "confusion_matrix.json").read_text()) == {
        "labels": ["negative", "positive"],
        "rows": "label",
        "columns": "prediction",
        "counts": [[0, 1], [1, 1]],
    }
    assert (tmp_path / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "per_class.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert table[1] == {
        "label": "positive",
        "precision": "0.5",
        "recall": "0.5",
        "f1": "0.5",
        "support": "2",
        "predicted": "2",
    }
    arrays = np.load(tmp_path / "preds_and_labels.npz")
    assert arrays["predictions"].tolist() == [1, 0, 1] and arrays["labels"].tolist() == [1, 1, 0]
    assert arrays["probabilities"].shape == (3, 2)


def test_of_many_labels_the_likeliest_are_kept(tmp_path, monkeypatch):
    names = tuple(f"c{i}" for i in range(120))
    shares = np.arange(120) / np.arange(120).sum()
    made = [work.Prediction(119, names, shares)] * 3
    row = TASK.row(made[0], {"label": 5})
    assert list(row["probabilities"]) == list(names[100:]) and row["label"] == "c5"
    assert row["probabilities"]["c119"] == row["probability"] == shares[119]
    monkeypatch.setattr(work, "LARGEST_ARRAY", 3 * 119)
    write_extras(work.extras(made, [{"label": 5}] * 3), tmp_path)
    arrays = np.load(tmp_path / "preds_and_labels.npz")
    assert arrays["probability_labels"].shape == arrays["probabilities"].shape == (3, 20)
    assert arrays["probability_labels"][0].tolist() == list(range(119, 99, -1))
    assert json.loads((tmp_path / "confusion_matrix.json").read_text())["cells"] == [[5, 119, 3]]


def test_with_weights_a_rare_class_counts_as_much_as_a_frequent_one(saved):
    model, collator = saved[2], Collator(saved[3].pad_token_id)
    some = [e for e in EXAMPLES if e["label"] == 0] + [e for e in EXAMPLES if e["label"] == 1][:2]
    made = features(saved, some)
    batch = collator([made[i] for i in range(len(made))])
    labels = batch.pop("labels")
    loss = TASK.training_loss(
        made, SimpleNamespace(class_weights="balanced", label_smoothing=0.0), ("no", "yes")
    )
    with torch.no_grad():
        each = torch.nn.functional.cross_entropy(model(**batch).logits, labels, reduction="none")
        weighed = loss(model, batch, labels)
    expected = sum(each[labels == i].mean() * len(some) / 2 for i in range(2))
    torch.testing.assert_close(weighed, expected)
    assert (
        TASK.training_loss(made, SimpleNamespace(class_weights="none", label_smoothing=0.0), ("no", "yes"))
        == TASK.loss
    )


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_smoothed_labels_give_every_class_a_share_and_texts_keep_their_weights(weights, saved):
    model, collator = saved[2], Collator(saved[3].pad_token_id)
    made = features(saved, EXAMPLES[:5])
    batch = collator([made[i] for i in range(len(made))])
    labels = batch.pop("labels")
    args = SimpleNamespace(class_weights=weights, label_smoothing=0.1)
    with torch.no_grad():
        logs = model(**batch).logits.log_softmax(-1)
        found = TASK.training_loss(made, args, ("no", "yes"))(model, batch, labels)
    each = -(0.95 * logs[torch.arange(5), labels] + 0.05 * logs[torch.arange(5), 1 - labels])
    counts = labels.bincount(minlength=2)
    weight = 5 / (2 * counts[labels]) if weights == "balanced" else torch.ones(5)
    torch.testing.assert_close(found, (weight * each).sum())


@pytest.mark.parametrize("classes", [2, 5])
def test_the_figure_tells_counts_and_shares_of_rows(classes):
    counts = np.arange(classes**2).reshape(classes, classes) * 100
    figure = run_figures.confusion_matrix(counts, [f"label {i}" for i in range(classes)])
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("prediction", "label")
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    for (i, j), count in np.ndenumerate(counts):
        assert shown[(j, i)] == f"{count:,}\n{count / counts[i].sum():.1%}"
    figure.draw_without_rendering()
    renderer, cell = figure.canvas.get_renderer(), axes.get_window_extent().width / classes
    assert all(text.get_window_extent(renderer).width < cell for text in axes.texts)
    # Every number stands out against its cell: WCAG's contrast of 4.5 at the least.
    image = axes.get_images()[0]

    def luminance(rgb):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb[:3]]
        return np.dot((0.2126, 0.7152, 0.0722), linear)

    for text in axes.texts:
        j, i = text.get_position()
        behind = luminance(image.cmap(image.norm(image.get_array()[i, j])))
        front = 1.0 if text.get_color() == "white" else 0.0
        assert (max(behind, front) + 0.05) / (min(behind, front) + 0.05) >= 4.5


@pytest.mark.parametrize("classes", [30, 50, 120])
def test_the_figure_of_many_classes_can_be_read(classes):
    rng = np.random.default_rng(0)
    counts = np.diag(rng.integers(100, 99_999, classes)) + (rng.random((classes, classes)) < 0.1) * 7
    figure = run_figures.confusion_matrix(
        counts, [f"a rather long name of class {i}" for i in range(classes)]
    )
    axes, shown = figure.axes[0], min(classes, 51)
    assert len(axes.get_xticks()) == len(axes.get_yticks()) == shown
    last = axes.get_yticklabels()[-1].get_text()
    assert last == ("70 others" if classes == 120 else f"a rather long name of class {classes - 1}"[:30])
    # Every text is of a cell, fits into it, and can be read in print.
    figure.draw_without_rendering()
    renderer, cell = figure.canvas.get_renderer(), axes.get_window_extent().width / shown
    assert all(
        text.get_window_extent(renderer).width < cell and text.get_fontsize() >= 6 for text in axes.texts
    )
    assert all(tick.get_fontsize() >= 7 for tick in axes.get_xticklabels())
    names = [tick.get_window_extent(renderer) for tick in axes.get_xticklabels()]
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(names))
    assert max(figure.get_size_inches()) < 20
    # Nothing is lost where classes are grouped.
    assert axes.get_images()[0].get_array().shape == (shown, shown)
    if classes == 120:
        grouped, _ = run_figures.most_confused(counts, ["x"] * 120)
        assert grouped.sum() == counts.sum() and np.trace(grouped) >= np.trace(counts)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny):
    """(bundle, base, model, tokenizer, info) of a LoRA classifier of tiny size."""
    return trained.save_classifier(tmp_path_factory.mktemp("saved"), tiny)


@pytest.fixture(scope="module")
def classifier(saved):
    return classifying.Classifier(saved[0], saved[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory, saved):
    folder = tmp_path_factory.mktemp("serving")
    with stores.in_force(folder):
        with runs.start("imdb-sentiment", "run", {}) as run:
            uri = model_logging.log_model(run, saved[0], saved[1], ASKED[0], {"test_accuracy": 50.0})
        yield mlflow.pyfunc.load_model(uri)


def features(saved, examples):
    _, _, model, tokenizer, info = saved
    args = SimpleNamespace(max_length=info.settings["max_length"])
    return TASK.features(tokenizer, model.config, examples, args)


def test_what_is_too_long_is_cut_and_padding_follows_the_batch(saved):
    made = features(saved, [*EXAMPLES, LONG | {"label": 0}])
    assert made.lengths.max() == saved[4].settings["max_length"] and made.names == NAMES
    assert (made.input_ids[-1][-1], made.input_ids[-1][0]) == (
        saved[3].sep_token_id,
        saved[3].cls_token_id,
    )
    batch = Collator(saved[3].pad_token_id)([made[0], made[1]])
    assert batch["input_ids"].shape == (2, made.lengths[:2].max()) and batch["labels"].tolist() == [0, 0]
    assert not batch["token_type_ids"].any()


def test_the_loss_is_the_sum_over_texts_whatever_batch_they_are_in(saved):
    model, made, collator = saved[2], features(saved, EXAMPLES), Collator(saved[3].pad_token_id)

    def loss(indices):
        batch = collator([made[i] for i in indices])
        return work.label_loss(model, batch, batch.pop("labels"))

    with torch.no_grad():
        alone = sum(loss([i]) for i in range(len(made)))
        torch.testing.assert_close(loss(range(len(made))), alone, rtol=1e-5, atol=1e-4)


def test_shares_of_two_processes_are_the_whole(saved):
    model, made, collator = saved[2], features(saved, EXAMPLES[:5]), Collator(saved[3].pad_token_id)
    model.train()
    whole = predict_logits(model, made, collator)
    assert model.training
    model.eval()
    for processes in (2, 7):
        shares = [predict_logits(model, made, collator, part=(i, processes)) for i in range(processes)]
        indices, logits = join(shares)
        assert indices.tolist() == list(range(5))
        np.testing.assert_allclose(logits, whole[1], atol=1e-5)


def test_answers_are_those_of_evaluation(saved, classifier):
    made = features(saved, [*EXAMPLES, LONG])
    outputs = predict_logits(saved[2], made, Collator(saved[3].pad_token_id))
    evaluated = work.predictions(outputs, made.names)
    assert len({p.label for p in evaluated}) == 2
    for p, ranked in zip(evaluated, classifier.classify([*ASKED, LONG], top_k=5), strict=True):
        assert ranked[0]["label"] == NAMES[p.label]
        assert ranked[0]["score"] == pytest.approx(p.probabilities[p.label], abs=1e-4)
        assert len(ranked) == 2 and sum(label["score"] for label in ranked) == pytest.approx(1)
        assert ranked[0]["score"] >= ranked[1]["score"]


def test_the_logged_model_answers_as_the_classifier(served, classifier):
    rows = served.predict(pd.DataFrame(ASKED))
    assert list(rows) == ["label", "score"]
    rows = served.predict(pd.DataFrame(ASKED), params={"raw_scores": True})
    assert rows.to_dict("records") == [ranked[0] for ranked in classifier.classify(ASKED)]
    rows = served.predict(pd.DataFrame(ASKED), params={"top_k": 2, "raw_scores": True}).to_dict("records")
    assert [[r, *r.pop("alternatives")] for r in rows] == classifier.classify(ASKED, top_k=2)
    assert list(served.predict(pd.DataFrame(ASKED)[:0])) == ["label", "score"]


def test_odd_but_good_texts_are_classified(classifier):
    odd = ["Zoë ate 🍎🍏 in 東京.", "a\u0301" * 300, "x" * 5000, "line\r\ntab\tnul\x00", ".", "w " * 100_000]
    for ranked in classifier.classify([{"text": text} for text in odd]):
        assert ranked[0]["label"] in NAMES and np.isfinite(ranked[0]["score"])


BAD_ROWS = {
    "row 1: text must be a string, not null": None,
    "row 1: text must be a string, not int": 5,
    "row 1: text must be a string, not list": ["a"],
    "row 1: text is empty": " \n",
    "row 1: text holds a lone surrogate": "fine \ud800",
    "row 1: text has 200001 characters; at most 200000": "w" * 200_001,
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_bad_rows_are_refused_in_plain_words(reason, served, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["uvicorn"])
    asked = pd.DataFrame([{"text": "fine"}, {"text": BAD_ROWS[reason]}], dtype=object)
    with pytest.raises(MlflowException) as caught:
        served.unwrap_python_model().predict(None, asked)
    assert reason in str(caught.value) and caught.value.get_http_status_code() == 400


def test_too_much_at_once_is_refused_by_a_server(served, monkeypatch):
    assert len(served.predict(pd.DataFrame([{"text": "a"}] * 257))) == 257
    monkeypatch.setattr(sys, "argv", ["uvicorn"])
    for rows, reason in (
        ([{"text": "a"}] * 257, "257 rows"),
        ([{"text": "w" * 200_000}] * 21, "the texts of"),
    ):
        with pytest.raises(MlflowException, match=reason):
            served.predict(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def client(served):
    """MLflow's own server in this process."""
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    return TestClient(init(served), raise_server_exceptions=False)


ONE = {"text": "The heart pumps blood."}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [ONE, ONE]},
        {"dataframe_split": {"columns": ["text"], "data": [[ONE["text"]]] * 2}},
        {"inputs": [ONE, ONE]},
        {"instances": [ONE, ONE]},
        {"inputs": {"text": [ONE["text"]] * 2}},
    ],
    ids=str,
)
def test_every_format_is_answered(body, client, classifier):
    answer = client.post("/invocations", json=body | {"params": {"top_k": 2, "raw_scores": True}})
    assert answer.status_code == 200, answer.text
    expected = classifier.classify([ONE, ONE], top_k=2)
    assert answer.json()["predictions"] == [{**best, "alternatives": rest} for best, *rest in expected]


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{"text": None}]},
        {"inputs": [{"text": 5}]},
        {"inputs": [{"text": ""}]},
        {"inputs": [{"txt": "a"}]},
        {"inputs": "a text"},
        {"inputs": None},
        {"rows": [ONE]},
        {"dataframe_records": 5},
        {"inputs": [ONE], "params": {"top_k": 0}},
        {"inputs": [ONE], "params": {"top_k": "two"}},
        {"inputs": [ONE], "params": {"top_k": 1.5}},
        {"inputs": [ONE], "params": [1]},
        [ONE],
    ],
    ids=str,
)
def test_bad_requests_get_a_plain_reason(body, client):
    answer = client.post("/invocations", json=body)
    assert 400 <= answer.status_code < 500 and 0 < len(answer.text) < 3000
    assert "Traceback" not in answer.text and "stack_trace" not in answer.text
