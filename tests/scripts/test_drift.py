"""drift.py: what a server noted beside what the version was tested on."""

from datetime import date
from pathlib import Path

import mlflow
import pytest

from common.data import prepared
from common.errors import UserError
from common.registry.drift import compare
from common.serving.observations import Observations
from common.serving.observed import Seen
from tests.scripts.conftest import call_script
from tests.support import stores, trained

NAME = "bert-squad-qa"
ALIKE = {"question": "LATIN", "context": "LATIN"}


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder, test questions, what version 1, the champion, answered to them in its test) with their store in force."""
    folder = tmp_path_factory.mktemp("drift")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        run_id = trained.log_run(folder, tiny, record, examples, experiment="drift")
        (model,) = mlflow.search_logged_models(
            experiment_ids=[mlflow.get_run(run_id).info.experiment_id], output_format="list"
        )
        client = mlflow.MlflowClient()
        client.create_registered_model(NAME)
        client.create_model_version(NAME, f"models:/{model.model_id}", run_id)
        client.set_registered_model_alias(NAME, "champion", 1)
        rows = mlflow.artifacts.load_dict(f"runs:/{run_id}/predictions/test.json")
        answers = [{"answer": row["prediction"], "score": row["probability"]} for row in rows]
        yield folder, [{name: e[name] for name in ALIKE} for e in examples], answers


def noted(folder, records, answers, version="1", times=1, model=""):
    """A folder of what a server notes of these rows, asked this many times. model: the name of what answered."""
    given = Observations(folder)
    for _ in range(times):
        given.put(Seen("id", version, len(records), status=200, records=records, answers=answers), model)
    given.finish(60)
    return folder


def longer(records, answers):
    """Questions in Russian on texts of many times their length, answered without confidence, as if they were 40."""
    many = [
        {"question": f"Кто это, {i}? {r['question'][:5]}", "context": f"{i} " + r["context"] * 5}
        for i in range(5)
        for r in records
    ]
    return many, [{"answer": "", "score": 0.01 * i / len(many)} for i in range(len(many))]


def test_the_same_questions_do_not_drift_however_often_they_are_asked(world, tmp_path):
    folder, records, answers = world
    served = noted(tmp_path / "served", records, answers, times=30, model=NAME)
    page = tmp_path / "page.html"
    done = call_script(
        "drift.py", served, "--model", f"models:/{NAME}@champion", "--output", page, "--fail_on_drift"
    )
    assert done.returncode == 0, done.stderr
    assert f"Version 1 of {NAME}: 240 served rows" in done.stdout and "No drift" in done.stdout
    found = compare(served, f"models:/{NAME}/1")
    # Each text once: eight questions on three contexts.
    sizes = {measure.name: (len(measure.reference), len(measure.served)) for measure in found.measures}
    assert sizes["question length"] == (8, 8) and sizes["context script"] == (3, 3)
    assert {measure.distance.value for measure in found.measures} == {0.0}
    html = page.read_text()
    assert "<script" not in html and "http" not in html.replace("http-equiv", "")
    assert not any(r["question"] in html for r in records)


def test_other_questions_are_named(world, tmp_path):
    folder, records, answers = world
    served = noted(tmp_path / "served", *longer(records, answers))
    noted(served, records, answers, version="2")
    # A server may answer with several models.
    noted(served, records, answers, version="1", model="another")
    (served / "observations-2020-01-01-0000.jsonl").write_text(
        '{"time": "2020-01-01T00:00:00+00:00", "vers\n[1]\n'
    )
    command = ("drift.py", served, "--model", f"models:/{NAME}@champion", "--output", tmp_path / "page.html")
    done = call_script(*command)
    assert done.returncode == 0, done.stderr
    assert "40 served rows" in done.stdout and "2 lines could not be read" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Drift: ")]
    for measure in ("question script", "context length", "score"):
        assert measure in line
    assert "context script" not in line
    assert "question script (drift)" in (tmp_path / "page.html").read_text()
    assert call_script(*command, "--fail_on_drift").returncode == 1
    # A distance that is smaller than asked for is none.
    assert compare(served, f"models:/{NAME}/1", least=1.0).drifting == [
        measure.name
        for measure in compare(served, f"models:/{NAME}/1").measures
        if measure.drifts and measure.distance.value == 1
    ]


def test_texts_may_be_compared_with_those_of_the_training_data(world, tmp_path):
    folder, _, answers = world
    trained_on = prepared.load(folder / "data")[0]["train"].to_list()
    records = [{name: e[name] for name in ALIKE} for e in trained_on]
    served = noted(tmp_path / "served", records, (answers * len(records))[: len(records)])
    found = compare(served, f"models:/{NAME}/1", against="train")
    distances = {measure.name: measure.distance.value for measure in found.measures}
    assert {distances[f"{name} {of}"] for name in ALIKE for of in ("length", "script")} == {0.0}
    assert found.sizes == {"test": len(answers), "train": len(records)}
    # Answers have the test's for their reference.
    assert {m.name: len(m.reference) for m in found.measures}["score"] == len(answers)
    beside_test = {m.name: m.distance.value for m in compare(served, f"models:/{NAME}/1").measures}
    assert beside_test["question length"] > 0
    page = tmp_path / "page.html"
    command = ("drift.py", served, "--model", f"models:/{NAME}/1", "--against", "train", "--output", page)
    done = call_script(*command)
    assert (
        done.returncode == 0 and f"and {len(records)} training questions of the data of run" in done.stdout
    ), done.stderr


def test_days_and_what_cannot_be_compared(world, tmp_path):
    folder, records, answers = world
    served = noted(tmp_path / "served", records, answers, version="7")
    with pytest.raises(UserError, match=r"holds nothing of version 1 of bert-squad-qa; it holds version 7"):
        compare(served, f"models:/{NAME}/1")
    noted(served, records, answers, version="1", model="another")
    with pytest.raises(UserError, match=r"it holds version 1 of another, 7"):
        compare(served, f"models:/{NAME}/1")
    with pytest.raises(UserError, match="since 2999-01-01"):
        compare(served, f"models:/{NAME}/1", since=date(2999, 1, 1))
    with pytest.raises(
        UserError, match="holds no observations of a server: start it with SERVING_OBSERVATIONS="
    ):
        compare(tmp_path, f"models:/{NAME}/1")
    for wrong in ("models:/m-0123", "runs:/1/model", "bert"):
        with pytest.raises(UserError, match="write models:/NAME@ALIAS"):
            compare(served, wrong)
    served = noted(tmp_path / "good", records, answers)
    with pytest.raises(UserError, match="no such folder"):
        compare(served, f"models:/{NAME}/1", data_dir=Path("nowhere"))
    done = call_script("drift.py", served, "--model", f"models:/{NAME}/1", "--since", "yesterday")
    assert done.returncode == 2 and "write it as 2026-11-01" in done.stderr
