"""A study from its file to its folder: with its rows in threads of this process, then as it is run, and killed."""

import json
import random
import subprocess
import sys
import time
from collections import Counter

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from common.errors import UserError
from common.paths import ROOT, interpreter
from common.studies.folder import Folder
from common.studies.row_starter import Starter
from common.tracking import runs as tracking
from tests.support.stores import in_force
from tests.support.study_command import StudyCommand
from tests.support.techniques import TECHNIQUES
from tests.support.trained import prepare_data

BAD = "sweep-lora-learning_rate=1e+30-seed=42"
GOOD = [
    "sweep-lora-learning_rate=0.001-seed=42",
    "full-lora-learning_rate=0.001-seed=42",
    "full-ia3-seed=42",
]
MEASURED = [
    "training_seconds",
    "train_samples_per_second",
    "peak_memory_mib",
    "evaluation_samples_per_second",
]


@pytest.fixture(scope="module")
def content(tiny, tmp_path_factory):
    """Four rows, one of which diverges."""
    folder = tmp_path_factory.mktemp("study")
    prepare_data(folder, "v1.1")
    base = {
        "model_checkpoint": tiny("bert"), "data_dir": str(folder / "data"), "max_length": 96, "doc_stride": 16,
        "batch_size": 1, "num_train_epochs": 2, "logging_steps": 1, "save_steps": 1, "warmup_ratio": 0.0,
        "max_grad_norm": 1e30, "gradient_norms": True,
    }  # fmt: skip
    return {
        "name": "small",
        "description": "One row diverges.",
        "base": base,
        "techniques": ["lora", "ia3"],
        "stages": {
            "sweep": {
                "techniques": ["lora"],
                "grid": {"learning_rate": ["1e-3", "1e30"]},
                "base": {"max_train_samples": "50%"},
            },
            "full": {"best_of": "sweep"},
        },
    }


@pytest.fixture(scope="module")
def study(content, tmp_path_factory):
    """The study, run once to its end in a store of its own, and its exit code."""
    import torch

    folder, threads = tmp_path_factory.mktemp("run"), torch.get_num_threads()
    with in_force(folder), pytest.MonkeyPatch.context() as patch:
        torch.set_num_threads(1)
        study = StudyCommand(content, folder, patch)
        study.code = study()
        study.first = list(study.trained)
        yield study
        torch.set_num_threads(threads)


def table(folder):
    return pd.read_csv(folder / "study.csv").set_index("name")


@pytest.mark.slow
def test_a_failed_row_is_reported_and_does_not_stop_the_rest(study):
    assert study.code == 1
    assert study.first == [GOOD[0], BAD, *GOOD[1:]]
    found = table(study.results)
    assert list(found.index) == study.first
    assert list(found["status"]) == ["finished", "failed", "finished", "finished"]
    assert "diverged" in found.loc[BAD, "failure"] and np.isnan(found.loc[BAD, "test_f1"])
    good = found.loc[GOOD]
    assert list(good["learning_rate"]) == [1e-3, 1e-3, TECHNIQUES["ia3"].rates.small.value]
    assert (good["test_f1_low"] <= good["test_f1"]).all() and (good["test_f1"] <= good["test_f1_high"]).all()
    assert good[["best_validation_f1", "trainable_parameters", *MEASURED]].notna().all(axis=None)


@pytest.mark.slow
def test_rows_are_children_of_one_run_that_holds_the_study(study):
    state = json.loads((study.results / "study.json").read_text())
    parent = mlflow.get_run(state["parent_run"])
    assert parent.info.status == "FAILED" and "diverged" in parent.data.tags["failure"]
    for row in state["rows"].values():
        if row["status"] == "finished":
            run = mlflow.get_run(row["run_id"])
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert run.info.run_name == row["name"]
    held = {file.path for file in mlflow.MlflowClient().list_artifacts(parent.info.run_id)}
    assert {"study.yaml", "study.csv", "report.md"} <= held


@pytest.mark.slow
def test_what_each_row_left_lies_in_its_folder(study):
    for name in GOOD:
        folder, row = study.results / "runs" / name, table(study.results).loc[name]
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["run_id"] == row["run_id"] and metrics["test_f1"] == pytest.approx(row["test_f1"])
        answers = json.loads((folder / "predictions" / "test.json").read_text())
        assert len(answers) == row["test_examples"]
        validated = json.loads((folder / "predictions" / "validation_scores.json").read_text()).values()
        assert 100 * np.mean([each["f1"] for each in validated]) == pytest.approx(
            metrics["best_validation_f1"]
        )
        assert yaml.safe_load((folder / "config.yaml").read_text())["run_name"] == name
        assert any("eval_f1" in entry for entry in json.loads((folder / "log_history.json").read_text()))
        gradients = json.loads((folder / "gradient_norms.json").read_text())
        assert [entry["step"] for entry in gradients] == list(range(1, len(gradients) + 1))
        assert {"step", "layer 0", "layer 1", "head"} == set(gradients[-1])


@pytest.mark.slow
def test_the_report_is_given_what_it_needs(study):
    about, runs, histories, scores, gradients = study.reported[0]
    assert (about["name"], about["task"], about["metric"]) == ("small", "extractive-qa", "f1")
    assert about["axes"] == ["learning_rate"] and about["provenance"]["data_fingerprint"]
    assert "the lowest that was tried" in about["edges"][0] and len(about["edges"]) == 1
    assert about["record"]["command"].endswith("small.yaml") and about["record"]["seeds"] == [42]
    assert about["record"]["data_fingerprint"] == about["provenance"]["data_fingerprint"]
    finished = runs[runs["status"] == "finished"]
    assert set(finished["run_id"]) == set(histories) == set(scores) == set(gradients)
    for _, row in finished.iterrows():
        assert scores[row["run_id"]]["f1"].mean() * 100 == pytest.approx(row["test_f1"])


@pytest.mark.slow
def test_a_second_start_does_nothing_and_a_failed_row_is_tried_again_when_asked(study, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(Starter, "_open", lambda starter: opened.append(starter))
    before = mlflow.search_runs(output_format="list", search_all_experiments=True)
    assert study() == 1 and study.trained == [] and len(study.reported) == 1
    assert "nothing to do" in capsys.readouterr().out
    assert study("--dry_run") == 0 and study.trained == []
    shown = capsys.readouterr().out
    assert "3 of 4 rows are finished; time left: about 0:00" in shown and "diverged" in shown
    assert len(mlflow.search_runs(output_format="list", search_all_experiments=True)) == len(before)
    # Nothing was imported for rows that are not trained.
    assert not opened
    asked = []
    found = tracking.finished_run
    monkeypatch.setattr(tracking, "finished_run", lambda *about: asked.append(about) or found(*about))
    assert study("--retry_failed") == 1 and study.trained == [BAD] and len(opened) == 1
    # Finished rows: before anything is done, and before their stage; not again to say how much is left.
    assert sorted(Counter(asked).values())[:3] == [2, 2, 2]


@pytest.mark.slow
def test_a_run_of_another_study_counts(study, content, tmp_path):
    """Nothing is trained, the report is made, and the other's run is named as this one's."""
    other = {**content, "name": "other", "techniques": ["ia3"]}
    del other["stages"]
    with pytest.MonkeyPatch.context() as patch:
        second = StudyCommand(other, tmp_path, patch)
        assert second() == 0 and second.trained == [] and len(second.reported) == 1
    rows = json.loads((tmp_path / "results" / "other" / "study.json").read_text())["rows"]
    assert [row["run_id"] for row in rows.values()] == [table(study.results).loc[GOOD[2], "run_id"]]


@pytest.mark.long
def test_a_study_leaves_out_seeds_and_trains_them_once_they_are_wanted(study, content, tmp_path, capsys):
    """No difference below a million points matters: one seed is enough. At one point, none of them is."""
    other = {**content, "name": "deciding", "techniques": ["lora", "ia3"], "seeds": [52, 53]}
    other |= {"stop": {"when": "decided", "smallest_difference": 1.0, "seed_sd": 1000}}
    other["base"] = content["base"] | {"num_train_epochs": 1, "save_steps": 100, "gradient_norms": False}
    del other["stages"]
    with pytest.MonkeyPatch.context() as patch:
        stopping = StudyCommand(other, tmp_path, patch)
        assert stopping("--dry_run") == 0 and "at least 2 and at most 4 of 4 rows" in capsys.readouterr().out
        assert stopping("--smallest_difference", "1e6") == 0
        assert stopping.trained == ["lora-seed=52", "ia3-seed=52"]
        shown, folder = capsys.readouterr().out, tmp_path / "results" / "deciding"
        assert "no more seeds; decided after 1 seed: validation F1 " in shown
        found = table(folder)
        assert list(found["status"]) == ["finished", "stopped"] * 2
        assert sorted(found["decided"].dropna()) == [1, 1]
        (stage,) = json.loads((folder / "decisions.json").read_text())
        assert (stage["planned"], stage["left_out"]) == (4, 2) and stage["saved_seconds"] > 0
        assert stopping.reported[-1][0]["decided"] == [stage]
        parent = json.loads((folder / "study.json").read_text())["parent_run"]
        assert "decisions.json" in {f.path for f in mlflow.MlflowClient().list_artifacts(parent)}
        # Again: nothing to do. With the file's own difference, the rest.
        assert stopping("--smallest_difference", "1e6") == 0 and stopping.trained == []
        assert stopping() == 0 and stopping.trained == ["lora-seed=53", "ia3-seed=53"]
        assert list(table(folder)["status"]) == ["finished"] * 4
        stage = json.loads((folder / "decisions.json").read_text())[0]
        assert stage["left_out"] == 0 and not any("bound" in row for row in stage["candidates"])


@pytest.mark.long
def test_a_study_that_is_stopped_says_how_to_go_on_and_keeps_its_run(study, content, tmp_path, capsys):
    """`study` provides the store."""
    other = {**content, "name": "stopped", "techniques": ["ia3"], "seeds": [7]}
    del other["stages"]

    def state():
        return json.loads((tmp_path / "results" / "stopped" / "study.json").read_text())

    def stop(folder, command, name, start):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        stopped = StudyCommand(other, tmp_path, patch)
        with pytest.MonkeyPatch.context() as stopping:
            stopping.setattr(Folder, "run", stop)
            with pytest.raises(KeyboardInterrupt):
                stopped()
        assert f"Stopped. To continue: {interpreter()} study.py {stopped.file}" in capsys.readouterr().err
        parent = state()["parent_run"]
        assert mlflow.get_run(parent).info.status == "KILLED" and state()["rows"] == {}
        assert stopped() == 0 and stopped.trained == ["ia3-seed=7"]
    assert state()["parent_run"] == parent and mlflow.get_run(parent).info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "base.batch_size is 0 for lora; it must be at least 1"),
        ({"max_length": 500}, "is longer than the 128 positions of this model"),
        ({"model_checkpoint": "/nowhere"}, "no such folder"),
        ({"model_checkpoint": "untrained-bert"}, "choose untrained-gpt2 or untrained-t5"),
    ],
)
def test_every_row_is_checked_before_the_first_one_runs(study, content, tmp_path, change, message):
    wrong = {**content, "name": "wrong", "base": content["base"] | change}
    with pytest.MonkeyPatch.context() as patch:
        refused = StudyCommand(wrong, tmp_path, patch)
        with pytest.raises(UserError, match=message):
            refused()
    assert refused.trained == [] and not (tmp_path / "results").exists()


@pytest.mark.long
def test_a_study_that_is_killed_goes_on_to_the_table_of_one_that_is_not(study, content, tmp_path, store):
    """Twice with the row that it trains, once without: that row then ends by itself, and is waited for."""
    file, results, moment = tmp_path / "small.yaml", tmp_path / "results" / "small", random.Random(5)
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    command = [sys.executable, str(ROOT / "scripts" / "study.py"), str(file)]
    command += ["--output_dir", str(tmp_path / "results")]
    for times, with_the_row in enumerate((True, False, True), 1):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 900
        while len(list((results / "logs").glob("*"))) < times and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(6 * moment.random())
        process.kill()
        process.wait()
        if with_the_row:
            child = json.loads((results / "study.json").read_text())["child"]["pid"]
            subprocess.run(["kill", "-9", str(child)], stderr=subprocess.DEVNULL)
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 1, done.stderr[-3000:]
    undisturbed, found = table(study.results), table(results)
    found["failure"] = found["failure"].str.replace(str(results), str(study.results))
    same = [name for name in undisturbed if name not in ("run_id", *MEASURED)]
    pd.testing.assert_frame_equal(found[same], undisturbed[same])
    parents = {run["tags"]["mlflow.parentRunId"] for run in map(tracking.recorded, found.loc[GOOD, "run_id"])}
    assert parents == {json.loads((results / "study.json").read_text())["parent_run"]}
