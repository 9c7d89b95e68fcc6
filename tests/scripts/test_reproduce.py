"""reproduce.py: a run trained again, held against what it logged."""

from contextlib import nullcontext
from dataclasses import replace

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from common.api.reproducing import report
from common.api.technique_scripts import techniques
from common.data import prepared
from common.errors import UserError
from common.serving import stored_code
from common.tracking import runs
from common.training import logged_run, reproduction
from common.training.fit import fit
from common.training.settings import RunArgs
from tests.scripts.conftest import call_script, squad_json
from tests.support import stores, trained
from tests.support.questions import EXAMPLES


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder with data/, id of a LoRA run) with their store in force."""
    folder = tmp_path_factory.mktemp("reproduce")
    with stores.in_force(folder):
        trained.prepare_data(folder)
        args = RunArgs(
            model_checkpoint=tiny("bert"),
            data_dir=str(folder / "data"),
            output_dir=str(folder / "out"),
            batch_size=4,
            seed=7,
            precision="fp32",
            **trained.LENGTHS,
        )
        yield folder, fit(techniques()["lora"](learning_rate=1e-2), args)


def count():
    return len(mlflow.search_runs(search_all_experiments=True)), len(mlflow.search_logged_models())


def inputs_of(run_id, file="inputs.json"):
    return mlflow.artifacts.load_dict(f"runs:/{run_id}/{file}")


def rewrite(run_id, file, content):
    mlflow.MlflowClient().log_dict(run_id, content, file)


def test_an_equal_run_is_bit_equal_and_leaves_no_record(world):
    folder, run_id = world
    before = count()
    done = call_script("reproduce.py", run_id, "--exact")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "weights       equal" in done.stdout and "predictions   8 of 8 equal" in done.stdout
    assert done.stdout.strip().endswith("Bit-equal.") and "Inputs that differ" not in done.stdout
    assert count() == before and not (folder / "out").exists()


def test_a_changed_library_and_machine_are_named(world):
    """As they would be recorded by another environment."""
    _, run_id = world
    recorded = inputs_of(run_id, "provenance.json")
    try:
        rewrite(run_id, "provenance.json", recorded | {"version.transformers": "4.0.0", "cpu": "a 68000"})
        found = reproduction.reproduce(run_id, techniques().values())
    finally:
        rewrite(run_id, "provenance.json", recorded)
    now = recorded["version.transformers"]
    assert found.differences == [
        f"the library transformers: 4.0.0 then, {now} now",
        f"the processor: a 68000 then, {recorded['cpu']} now",
    ]
    # What decides the result is the computation, not the record.
    assert found.equal and "Bit-equal." in report(found)


def test_changed_code_base_and_settings_are_named_by_their_part(world):
    _, run_id = world
    recorded = inputs_of(run_id)
    assert recorded["content"].keys() >= {
        "data",
        "checkpoint",
        "method",
        "script",
        "code.training",
        "code.modules",
    }
    changed = {
        "settings": recorded["settings"] | {"batch_size": 2},
        "content": recorded["content"]
        | {"code.training": "a" * 64, "code.modules": "b" * 64, "checkpoint": "c" * 64},
    }
    try:
        rewrite(run_id, "inputs.json", changed)
        found = reproduction.reproduce(run_id, techniques().values())
    finally:
        rewrite(run_id, "inputs.json", recorded)
    said = "\n".join(found.differences)
    assert len(found.differences) == 4 and "the setting batch_size: 2 then, 4 now" in said
    assert "common/training: aaaaaaaaaaaa then" in said and "the modules of common: bbbbbbbbbbbb then" in said
    assert "the weights and the tokenizer of the base: cccccccccccc then" in said


def test_changed_data_moves_the_result_and_is_named(world, tmp_path):
    folder, run_id = world
    chosen = [e | {"id": f"train-{e['id']}", "title": f"train {e['title']}"} for e in EXAMPLES[:4]]
    (tmp_path / "train.json").write_text(squad_json(chosen))
    from common.data import questions

    record = questions.prepare_files(
        tmp_path / "train.json", folder / "test.json", tmp_path / "data", validation_share=0.3
    )
    done = call_script("reproduce.py", run_id, "--data_dir", tmp_path / "data", "--exact")
    assert done.returncode == 1, done.stdout + done.stderr
    held = prepared.load(folder / "data")[1].fingerprint
    line = f"  the prepared data: {held[:12]} then, {record.fingerprint[:12]} now"
    assert line in done.stdout.splitlines() and "weights       different" in done.stdout
    assert "No recorded input differs" not in done.stdout


def test_the_exit_status_follows_the_logged_interval(world, monkeypatch):
    _, run_id = world
    figures = {"f1": reproduction.Figure(50.0, 53.0, 45.0, 55.0)}
    found = reproduction.Reproduction(run_id, "LoRA", [], [], False, 6, 8, False, figures, False)
    monkeypatch.setattr(reproduction, "reproduce", lambda *_: found)
    done = call_script("reproduce.py", run_id)
    assert done.returncode == 0 and "+3.00 points, in [45.0, 55.0]" in done.stdout
    assert "every score is equal or lies in its logged 95% interval. No recorded input differs" in done.stdout
    assert call_script("reproduce.py", run_id, "--exact").returncode == 1
    figures["f1"] = reproduction.Figure(50.0, 43.0, 45.0, 55.0)
    done = call_script("reproduce.py", run_id)
    assert done.returncode == 1 and "-7.00 points, outside of [45.0, 55.0]" in done.stdout
    assert "Not reproduced" in done.stdout


def test_a_verdict_claims_no_more_than_is_known():
    def verdict(weights=True, figure=(50.0, 50.0, 45.0, 55.0), same=True):
        figures = {"f1": reproduction.Figure(*figure)}
        found = reproduction.Reproduction("id", "LoRA", ["a"], [], weights, 8, 8, same, figures, same)
        return found.equal, found.holds, report(found).splitlines()[-1]

    nan = float("nan")
    assert verdict() == (True, True, "Bit-equal.")
    equal, holds, line = verdict(weights=None)
    assert not equal and holds and line.endswith("whether the weights are is not known.")
    # A run without intervals holds where nothing moved.
    assert verdict(None, (50.0, 50.0, nan, nan))[:2] == (False, True)
    moved = verdict(False, (50.0, 51.0, nan, nan), False)
    assert moved == (
        False,
        False,
        "Not reproduced: a score moved, and the run has no interval to hold it against.",
    )
    assert "lies outside" in verdict(False, (50.0, 60.0, 45.0, 55.0), False)[2]


def without(recorded, *names):
    """`runs.recorded`, as a store without some metrics answers."""

    def read(run_id):
        held = recorded(run_id)
        return held | {"metrics": {k: v for k, v in held["metrics"].items() if k not in names}}

    return read


def test_a_run_without_intervals_is_said_to_have_none(world, monkeypatch):
    _, run_id = world
    names = [f"test_{name}_{end}" for name in ("f1", "exact_match") for end in ("low", "high")]
    monkeypatch.setattr(runs, "recorded", without(runs.recorded, *names))
    found = reproduction.reproduce(run_id, techniques().values())
    (unknown,) = found.unknown
    assert unknown.startswith("intervals, which it did not record (test_")
    assert found.holds and "nan" not in report(found)


def test_what_a_run_lacks_is_said_before_anything_is_computed(world, monkeypatch):
    _, run_id = world
    monkeypatch.setattr(reproduction.Job, "carry_out", lambda *_: pytest.fail("it was trained"))
    with monkeypatch.context() as patch:
        patch.setattr(runs, "recorded", without(runs.recorded, "test_f1"))
        with pytest.raises(UserError, match=f"Run {run_id} has no metric test_f1"):
            reproduction.reproduce(run_id, techniques().values())
    held = inputs_of(run_id, "predictions/test.json")
    try:
        mlflow.MlflowClient().log_text(run_id, "[", "predictions/test.json")
        with pytest.raises(UserError, match="no readable predictions/test.json"):
            reproduction.reproduce(run_id, techniques().values())
    finally:
        rewrite(run_id, "predictions/test.json", held)
    monkeypatch.setattr(stored_code, "logged_model_of", _gone)
    with pytest.raises(UserError, match=f"run {run_id}: no such model"):
        reproduction.reproduce(run_id, techniques().values())


def _gone(uri):
    raise MlflowException("no such model")


@pytest.mark.long
def test_a_teacher_is_the_version_that_taught(world, tiny, tmp_path):
    """Its alias has moved to another model since."""
    folder, run_id = world
    client = mlflow.MlflowClient()
    mlflow.register_model(f"runs:/{run_id}/model", "teacher")
    client.set_registered_model_alias("teacher", "champion", "1")
    args = RunArgs(
        model_checkpoint=tiny("bert"),
        data_dir=str(folder / "data"),
        output_dir=str(tmp_path / "out"),
        batch_size=4,
        precision="fp32",
        teacher="models:/teacher@champion",
        **trained.LENGTHS,
    )
    taught = fit(techniques()["lora"](learning_rate=1e-2), args)
    record = prepared.load(folder / "data")[1]
    other = trained.log_run(folder, tiny, record, EXAMPLES, experiment="others", seed=9)
    version = mlflow.register_model(f"runs:/{other}/model", "teacher").version
    client.set_registered_model_alias("teacher", "champion", version)
    found = reproduction.reproduce(taught, techniques().values())
    assert not found.differences and found.equal


def test_it_computes_with_the_threads_of_the_run(world, monkeypatch):
    import torch

    _, run_id = world
    recorded = inputs_of(run_id, "provenance.json")
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    with reproduction._threads(recorded["threads"]):
        assert seen == [int(recorded["threads"])]
    assert len(seen) == 2


def test_a_run_without_a_record_of_its_inputs_is_compared_all_the_same(world):
    """Runs of earlier versions have none."""
    _, run_id = world
    recorded = inputs_of(run_id)
    try:
        rewrite(run_id, "inputs.json", {})
        found = reproduction.reproduce(run_id, techniques().values())
    finally:
        rewrite(run_id, "inputs.json", recorded)
    assert found.equal and not found.differences
    assert "Not compared: code, method and base, which it did not record (inputs.json)." in report(found)


def test_a_run_of_an_earlier_version_is_trained_with_its_threads_and_todays_defaults(world, monkeypatch):
    """It has fewer settings, and its tags say what the machine was."""
    _, run_id = world
    held, read = runs.recorded(run_id), logged_run.read
    machine = inputs_of(run_id, "provenance.json")
    tags = held["tags"] | machine | {"version.torch": "2.0.0", "git_commit": "d" * 40}

    def earlier(*given):
        run = read(*given)
        config = {k: v for k, v in run.config.items() if k not in ("dora", "layer_decay")}
        return replace(run, config=config, tags=tags)

    monkeypatch.setattr(logged_run, "read", earlier)
    monkeypatch.setattr(reproduction, "_recorded", lambda _: {})
    threads = []
    monkeypatch.setattr(reproduction, "_threads", lambda n: threads.append(n) or nullcontext())
    found = reproduction.reproduce(run_id, techniques().values())
    assert threads == [machine["threads"]] and found.equal
    assert found.differences == [
        "settings that its version did not have: now dora False, layer_decay 1.0",
        f"the library torch: 2.0.0 then, {machine['version.torch']} now",
        f"the commit: {'d' * 12} then, {held['tags']['git_commit'][:12]} now",
    ]
    assert not [line for line in found.unknown if "libraries" in line]


def test_what_cannot_be_trained_again_is_said_in_a_line(world, tiny):
    folder, run_id = world
    done = call_script("reproduce.py", "ab" * 16)
    assert done.returncode == 2 and "is not in the store" in done.stderr
    record = prepared.load(folder / "data")[1]
    other = trained.log_run(folder, tiny, record, EXAMPLES, experiment="untrained")
    rewrite(other, "config.yaml", {"merge_method": "linear", "data_dir": str(folder / "data")})
    with pytest.raises(
        UserError, match="settings that no technique of this version has .merge_method.: it was merged"
    ):
        reproduction.reproduce(other, techniques().values())
    mlflow.MlflowClient().set_terminated(other, "FAILED")
    with pytest.raises(UserError, match="is FAILED"):
        reproduction.reproduce(other, techniques().values())
    with pytest.raises(UserError, match="missing"):
        reproduction.reproduce(run_id, techniques().values(), str(folder / "missing"))
    (folder / "data").rename(folder / "moved")
    try:
        with pytest.raises(UserError, match="was trained from it: name the data with --data_dir"):
            reproduction.reproduce(run_id, techniques().values())
    finally:
        (folder / "moved").rename(folder / "data")
    assert not (folder / "missing").exists()
