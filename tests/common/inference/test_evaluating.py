"""Models × data sets: the run's own figures, paired tests, variants, tables and what MLflow holds of them."""

import json
from dataclasses import replace
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest

from common.data.squad_json import read_squad_json
from common.errors import UserError
from common.inference import evaluating, evaluation_log, evaluation_report, models
from common.inference.source import source_of
from common.scoring.bootstrap import paired_bootstrap
from common.tracking import runs
from common.tracking.compared import compare_experiment
from tests.support import trained


@pytest.fixture(scope="module")
def loaded(run, tmp_path_factory, tiny):
    """The run's model, and another one of a folder."""
    bundle, base, *_ = trained.save(tmp_path_factory.mktemp("other"), tiny, seed=4)
    base.rename(bundle / "base")
    return [models.load(f"runs:/{run[0].info.run_id}/model"), models.load(str(bundle))]


@pytest.fixture(scope="module")
def data(run):
    return evaluating.DataSet("own test", read_squad_json(run[1] / "test.json").examples)


@pytest.fixture(scope="module")
def evaluation(loaded, data):
    return evaluating.evaluate(loaded, data.variants(["typos", "distractor"], 1))


@pytest.fixture(scope="module")
def logged(evaluation):
    """Model → the MLflow run of its evaluation."""
    return evaluation_log.log(evaluation, {"seed": 1})


def test_the_figures_are_the_runs_own_to_the_digit(run, evaluation):
    own = evaluation.results[0]
    logged = run[0].data.metrics
    for name in ("f1", "f1_low", "f1_high", "exact_match", "exact_match_low", "HasAns_f1", "NoAns_f1"):
        assert own.figures[name] == logged[f"test_{name}"], name
    rows = runs.predictions(run[0].info.run_id)
    assert [row["f1"] for row in rows] == own.each["f1"].tolist()
    assert [(row["id"], row["prediction"]) for row in rows] == [(a["id"], a["answer"]) for a in own.answers]


def test_models_are_compared_on_the_same_examples(evaluation, data):
    here = {result.model.name: result for result in evaluation.of(evaluation.results[0].data)}
    (behind,) = [key for key in evaluation.behind if key[1] == "own test"]
    (best,) = set(here) - {behind[0]}
    expected = paired_bootstrap(here[behind[0]].each["f1"], here[best].each["f1"])
    found = evaluation.behind[behind]
    assert found["p"] == expected["p"] and found["low"] == 100 * expected["low"]
    assert here[best].figures["f1"] >= here[behind[0]].figures["f1"]


def test_what_a_variant_costs_is_paired_with_the_original(evaluation):
    for result in evaluation.results:
        if result.data.variant:
            (original,) = [
                r
                for r in evaluation.results
                if r.model is result.model and r.data.variant == evaluating.ORIGINAL
            ]
            found = evaluation.lost[result.model.name, "own test", result.data.variant]
            assert found["difference"] == pytest.approx(result.figures["f1"] - original.figures["f1"])
            assert found["low"] <= found["difference"] <= found["high"]
    assert len(evaluation.lost) == 4


def test_the_tables_say_what_was_found(evaluation, tmp_path, logged):
    text = evaluation_report.as_text(evaluation)
    assert "What each model loses" in text and "own test" in text and "best" in text
    assert "typing errors in one of ten words" in text
    files = evaluation_report.write(evaluation, tmp_path, logged)
    assert files == ["evaluation.md", "evaluation.csv", "slices.csv"]
    table = pd.read_csv(tmp_path / "evaluation.csv", keep_default_na=False)
    assert len(table) == 6 and set(table["variant"]) == {"", "typos", "distractor"}
    assert set(table["run_id"]) == set(logged.values())
    first = table.iloc[0]
    assert float(first["f1"]) == pytest.approx(evaluation.results[0].figures["f1"])
    assert {"to_best_p", "to_original_difference"} <= set(table)
    slices = pd.read_csv(tmp_path / "slices.csv")
    assert {"question type", "answerable"} <= set(slices["dimension"]) and slices["model"].nunique() == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_dir"):
        evaluation_report.write(evaluation, tmp_path / "file")


def test_two_data_sets_make_a_table_of_both(loaded, data):
    half = evaluating.DataSet("half", data.examples[:4])
    table = evaluation_report.scores(evaluating.evaluate(loaded, [data, half]))
    assert list(table) == ["model", "own test: F1 [95%]", "half: F1 [95%]"] and len(table) == 2


def test_mlflow_has_it_beside_the_model(run, loaded, evaluation, logged):
    own = mlflow.get_run(logged[loaded[0].name])
    assert own.data.tags["mlflow.parentRunId"] == run[0].info.run_id
    assert own.info.experiment_id == run[0].info.experiment_id and own.info.status == "FINISHED"
    assert own.data.metrics["eval_own_test_f1"] == evaluation.results[0].figures["f1"]
    assert own.data.metrics["eval_own_test_typos_examples"] == 8
    prints = {each.dataset.name: each.dataset.digest for each in own.inputs.dataset_inputs}
    fingerprints = {r.data.title: r.data.fingerprint[:36] for r in evaluation.results}
    assert prints == fingerprints and len(set(prints.values())) == 3
    assert [each.model_id for each in own.inputs.model_inputs] == [loaded[0].origin.model_id]
    model = mlflow.get_logged_model(loaded[0].origin.model_id)
    held = {(m.key, m.dataset_name): m.value for m in model.metrics}
    assert held["eval_own_test_f1", "own test"] == evaluation.results[0].figures["f1"]
    rows = mlflow.artifacts.load_dict(f"runs:/{own.info.run_id}/own test_typos/predictions.json")
    assert len(rows) == 8 and set(rows[0]) >= {"id", "f1", "exact_match", "answer", "score"}
    foreign = mlflow.get_run(logged[loaded[1].name])
    assert mlflow.get_experiment(foreign.info.experiment_id).name == "evaluations"


def test_evaluations_are_no_trainings(run, logged):
    name = mlflow.get_experiment(run[0].info.experiment_id).name
    assert list(compare_experiment(name).table["run_id"]) == [run[0].info.run_id]


def test_a_fingerprint_is_of_the_content(data):
    same = evaluating.DataSet("else", json.loads(json.dumps(data.examples)))
    assert same.fingerprint == data.fingerprint
    changed = [data.examples[0] | {"question": "Which?"}, *data.examples[1:]]
    assert evaluating.DataSet("else", changed).fingerprint != data.fingerprint

    class Counted(list):
        readings = 0

        def __iter__(self):
            self.readings += 1
            return super().__iter__()

    counted = evaluating.DataSet("counted", Counted(data.examples))
    assert counted.fingerprint == counted.fingerprint == data.fingerprint
    assert counted.examples.readings == 1


def test_what_cannot_be_scored_or_compared_is_named(loaded, data, tmp_path, tiny):
    bundle, base, *_ = trained.save_classifier(tmp_path, tiny)
    base.rename(bundle / "base")
    with pytest.raises(
        UserError, match="cannot be compared: .* takes question and context .*; .* takes text"
    ):
        evaluating.evaluate([loaded[0], models.load(str(bundle))], [data])
    with pytest.raises(UserError, match="'a' has no answers: models are evaluated on examples with"):
        evaluating.evaluate(loaded, [evaluating.DataSet("x", [{"id": "a", "question": "?", "context": "x"}])])
    with pytest.raises(UserError, match="holds no examples"):
        evaluating.evaluate(loaded, [evaluating.DataSet("x", [])])


def test_one_label_and_any_number_are_not_compared(tmp_path, tiny):
    found = []
    for several in (False, True):
        folder = tmp_path / f"{several}"
        folder.mkdir()
        bundle, base, *_ = trained.save_classifier(folder, tiny, multi_label=several)
        base.rename(bundle / "base")
        found.append(models.load(str(bundle)))
    data = evaluating.DataSet("x", [{"id": "a", "text": "Bees dance.", "label": "negative"}])
    with pytest.raises(UserError, match=r"cannot be compared: .*\(classification\); .*\(multi-label"):
        evaluating.evaluate(found, [data])
    # A multi-label model's own file, with a text that has no label.
    file = tmp_path / "own.csv"
    file.write_text("text,label\nBees dance.,negative|positive\nThe heart pumps.,\n")
    source = source_of([str(file)], found[1].asked, answers_required=True, multi_label=True)
    (result,) = evaluating.evaluate(found[1:], [evaluating.DataSet("own", list(source.examples()))]).results
    assert np.isfinite(result.figures["f1_samples"]) and len(result.rows()) == 2


def test_names_are_checked_before_anything_is_asked():
    files = ["data/dev.json", "b/test set.csv"]
    assert evaluating.names_of(files, None) == ["dev", "test_set"]
    assert evaluating.names_of(files, ["a", "b"], ["typos"]) == ["a", "b"]
    for names, kinds, reason in (
        (["a/b", "c"], [], "--name 'a/b': use at most 60 letters"),
        (["covid qa", "covid_qa"], [], "--name 'covid qa': use"),
        (["dev", "dev_typos"], ["typos"], "dev and dev_typos would both be logged as dev_typos"),
        (["a", "a"], [], "give each of the 2 files a name of its own"),
        (["a"], [], "give each of the 2 files a name of its own"),
    ):
        with pytest.raises(UserError, match=reason):
            evaluating.names_of(files, names, kinds)
    with pytest.raises(UserError, match="rename one"):
        evaluating.names_of(["a b.json", "A_B.json"], None)


def test_models_are_listed_as_they_rank(evaluation, data):
    """Of two with the same F1 the one with more exact matches is the best, and stands first."""
    first = evaluation.results[0]
    worse, better = (
        replace(
            first,
            model=SimpleNamespace(name=name, task=first.model.task),
            figures=first.figures | {"f1": 50.0, "exact_match": exact},
        )
        for name, exact in (("worse", 10.0), ("better", 20.0))
    )
    tied = evaluating.Evaluation([worse, better])
    assert [result.model.name for result in tied.ranked(first.data)] == ["better", "worse"]
    assert list(evaluation_report.on_one_set(tied, first.data)["model"]) == ["better", "worse"]


def test_what_is_written_is_made_once(evaluation, monkeypatch):
    made, logs = [], []
    monkeypatch.setattr(evaluation_log, "as_markdown", lambda which: made.append(which) or "tables")
    monkeypatch.setattr(evaluation_log.evaluations, "log", lambda name, *_, **__: logs.append(name) or name)
    evaluation_log.log(evaluation, {})
    assert len(logs) == 2 and len(made) == 1


def test_labels_are_matched_by_name(tmp_path, tiny):
    bundle, base, *_ = trained.save_classifier(tmp_path, tiny)
    base.rename(bundle / "base")
    model = models.load(str(bundle))
    texts = ["The heart pumps.", "Two plates drift apart.", "Bees dance.", "The prize was shared."]
    labels = list(model.predict([{"text": text} for text in texts])["label"])
    other = {"negative": "positive", "positive": "negative"}
    for given, score in ((labels, 100.0), ([other[label] for label in labels], 0.0)):
        examples = [
            {"id": str(i), "text": text, "label": label}
            for i, (text, label) in enumerate(zip(texts, given, strict=True))
        ]
        (result,) = evaluating.evaluate([model], [evaluating.DataSet("x", examples)]).results
        assert result.figures["accuracy"] == score and np.isfinite(result.figures["f1"])
    # A label that the model does not have is never right.
    (result,) = evaluating.evaluate(
        [model], [evaluating.DataSet("x", [e | {"label": "neutral"} for e in examples[:1]] + examples[1:])]
    ).results
    assert result.figures["accuracy"] == 0.0


def test_labels_that_spell_sentiments_are_the_same_in_all_spellings(tmp_path, tiny):
    bundle, base, *_ = trained.save_classifier(tmp_path, tiny)
    base.rename(bundle / "base")
    model = models.load(str(bundle))
    texts = ["The heart pumps.", "Two plates drift apart.", "Bees dance.", "The prize was shared."]
    labels = list(model.predict([{"text": text} for text in texts])["label"])
    for spelling in ({"negative": 0, "positive": 1}, {"negative": "neg", "positive": "POS"}):
        examples = [
            {"id": str(i), "text": text, "label": spelling[label]}
            for i, (text, label) in enumerate(zip(texts, labels, strict=True))
        ]
        (result,) = evaluating.evaluate([model], [evaluating.DataSet("x", examples)]).results
        assert result.figures["accuracy"] == 100.0
        assert set(result.slices[result.slices["dimension"] == "label"]["slice"]) == set(labels)


def test_any_number_of_labels_is_judged_by_name():
    from common.tasks.table import TASKS

    task = next(task for task in TASKS.values() if task.multi_label)
    answers = [
        {"id": "a", "labels": ["sport", "news"], "scores": [0.9, 0.8]},
        {"id": "b", "labels": [], "scores": []},
    ]
    examples = [{"id": "a", "text": "x", "label": ["news"]}, {"id": "b", "text": "y", "label": []}]
    figures, each = task.judged(answers, examples)
    assert each["subset_accuracy"].tolist() == [0.0, 1.0] and figures["f1_micro"] == pytest.approx(200 / 3)
