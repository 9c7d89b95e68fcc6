"""A task is one class and one line of the table: other modules ask it, and a made-up task works throughout."""

import ast
import json
import subprocess
import sys

import mlflow
import numpy as np
import pytest

from common.data import labelled_texts, prepared
from common.errors import UserError
from common.models.families import FAMILIES
from common.paths import ROOT
from common.tasks import table
from common.tasks.batching import Collator
from common.tasks.classification.texts import join, make_texts, predict_logits, probabilities
from common.tasks.interface import Task
from common.training import fit
from common.training.settings import RunArgs
from tests.support import texts
from tests.support.stores import in_force
from tests.support.techniques import TECHNIQUES


class Ranking(Task):
    """Whether a text is positive, trained by squared errors of the probability instead of cross-entropy."""

    name = "made-up"
    data = "text"
    data_dir = "made_up_data"
    metrics = ("accuracy",)
    experiment = "made-up"
    registered = "made-up"
    served = "serving.classification"
    unit = "texts"
    confidence = "probability"
    right = "the right side"
    balanced_by = "label"

    def head(self, kind):
        return "SequenceClassification"

    def head_config(self, record):
        return {"id2label": dict(enumerate(record.labels))}

    def texts(self, example):
        return [example["text"]]

    def features(self, tokenizer, config, examples, args):
        segment_ids, names = config.type_vocab_size > 1, config.id2label.values()
        return make_texts(
            tokenizer, examples, max_length=args.max_length, segment_ids=segment_ids, names=names
        )

    def collator(self, tokenizer, config):
        return Collator(tokenizer.pad_token_id)

    def loss(self, model, batch, labels):
        positive = model(**batch).logits.softmax(-1)[:, 1]
        return (positive - labels).square().sum()

    def outputs(self, model, features, collator, args, part, progress):
        return predict_logits(model, features, collator, part=part)

    def join(self, parts):
        return join(parts)

    def predictions(self, outputs, features, examples, args, decision):
        return probabilities(outputs[1])[:, 1].tolist()

    def score(self, predictions, examples, version):
        right = np.array([(p > 0.5) == e["label"] for p, e in zip(predictions, examples, strict=True)], float)
        return {"accuracy": 100 * right.mean()}, {"accuracy": right}

    def row(self, prediction, example):
        return {"prediction": prediction > 0.5, "probability": prediction}

    def judged(self, answers, examples):
        positive = [a["score"] if a["label"] == "positive" else 1 - a["score"] for a in answers]
        return self.score(positive, [{"label": e["label"] == "positive"} for e in examples], "")

    def request(self, example):
        return {"text": example["text"]}

    def stored_settings(self, args, record, decision):
        return {"max_length": args.max_length, "labels": list(record.labels)}

    def disagreements(self, rows, answers, about, precision):
        return []

    def served_score(self, answers, rows, examples):
        return 100.0

    def slices(self, example):
        return {"label": str(example["label"])}


def test_a_made_up_task_trains_and_is_tested_and_logged(tiny, tmp_path, monkeypatch):
    task = Ranking()
    monkeypatch.setitem(table.TASKS, task.name, task)
    calls = []
    monkeypatch.setattr(task, "loss", lambda *given: calls.append(1) or Ranking.loss(task, *given))
    data = tmp_path / "data"
    labelled_texts.prepare_files(*write_texts(tmp_path), data, validation_share=0.2)
    with in_force(tmp_path):
        args = RunArgs(
            task=task.name,
            model_checkpoint=tiny("bert"),
            data_dir=str(data),
            output_dir=str(tmp_path / "out"),
            max_length=32,
            batch_size=8,
            max_train_samples=24,
        )
        run = mlflow.get_run(fit.fit(TECHNIQUES["lora"](num_train_epochs=1.0), args))
        assert mlflow.get_experiment(run.info.experiment_id).name == "made-up"
        assert (run.info.status, run.data.tags["task"], len(calls)) == ("FINISHED", "made-up", 3)
        rows = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/predictions/test.json")
        assert run.data.metrics["test_accuracy"] == pytest.approx(
            100 * np.mean([row["accuracy"] for row in rows])
        )
        assert {"id", "accuracy", "prediction", "probability"} == set(rows[0])
        (logged,) = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
        served = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
        assert list(served.predict([{"text": "The heart pumps blood."}]).columns) == ["label", "score"]
        splits, record = prepared.load(data)
        examples = [{**e, "label": record.labels[e["label"]]} for e in splits["test"]]
        answers = served.predict([{"text": e["text"]} for e in examples]).to_dict("records")
        assert task.judged(answers, examples)[0]["accuracy"] == run.data.metrics["test_accuracy"]


def write_texts(folder):
    """(train.json, test.json) of labelled texts."""
    files = []
    for part, count in (("train", 80), ("test", 20)):
        file = folder / f"{part}.jsonl"
        rows = [row | {"text": f"{part} {i}: {row['text']}"} for i, row in enumerate(texts.make_texts(count))]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files.append(file)
    return files


def test_no_other_module_names_a_task():
    names, seen = set(table.TASKS), 0
    for file in sorted((ROOT / "common").rglob("*.py")):
        place = file.relative_to(ROOT / "common").as_posix()
        if place.startswith("tasks/"):
            continue
        seen += 1
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and node.value in names:
                raise AssertionError(f"common/{place}:{node.lineno} names the task {node.value}")
    assert seen > 80


def test_the_table_needs_neither_torch_nor_transformers():
    code = (
        "import sys; from common.tasks.table import TASKS; assert len(TASKS) == 4; "
        "print({'torch', 'transformers', 'mlflow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("task", table.TASKS.values(), ids=lambda task: task.name)
def test_every_task_says_what_is_asked_of_it(task):
    for field in ("name", "data", "data_dir", "experiment", "registered", "description", "unit", "right"):
        assert getattr(task, field)
    assert table.task_of(task.name) is task and task.metric == task.metrics[0]
    assert (ROOT / "common" / f"{task.served.replace('.', '/')}.py").is_file()
    assert any(table.head_of(task, family) for family in FAMILIES.values())


def test_an_unknown_task_is_refused_with_the_names_of_the_others():
    with pytest.raises(
        UserError, match="'x': choose one of extractive-qa, classification, generative-qa, multi-label"
    ):
        table.task_of("x")


def test_only_tasks_that_pack_have_a_loss_without_padding():
    for task in table.TASKS.values():
        if task.packs:
            assert callable(task.unpadded_loss(FAMILIES["bert"], RunArgs()))
        else:
            with pytest.raises(TypeError, match=task.name):
                task.unpadded_loss(FAMILIES["bert"], RunArgs())


def test_a_question_that_a_served_model_answers_as_its_run_scores_full_without_the_data():
    rows = [{"id": "a", "prediction": "bees"}, {"id": "b", "prediction": ""}]
    answers = [{"answer": "the bees"}, {"answer": "nobody"}]
    assert table.TASKS["extractive-qa"].served_score(answers, rows, []) == 50.0
    truth = [{"id": "a", "answers": {"text": ["wasps"]}}, {"id": "b", "answers": {"text": ["nobody"]}}]
    assert table.TASKS["extractive-qa"].served_score(answers, rows, truth) == 50.0
    labelled = [{"label": "good"}, {"label": "bad"}]
    found = [{"label": "good"}, {"label": "good"}]
    assert table.TASKS["classification"].served_score(found, labelled, []) == 50.0
