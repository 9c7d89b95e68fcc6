"""reproduce.py: a run trained again, held against what it logged."""

import mlflow
import pytest

from common.api.reproducing import report
from common.api.technique_scripts import techniques
from common.data import prepared
from common.errors import UserError
from common.training import reproduction
from common.training.fit import fit
from common.training.settings import RunArgs
from tests.scripts.conftest import call_script, squad_json
from tests.support import trained
from tests.support.questions import EXAMPLES


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder with data/, id of a LoRA run) with their store in force."""
    folder = tmp_path_factory.mktemp("reproduce")
    with trained.store(folder):
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
    assert "every score lies in its logged 95% interval. No recorded input differs" in done.stdout
    assert call_script("reproduce.py", run_id, "--exact").returncode == 1
    figures["f1"] = reproduction.Figure(50.0, 43.0, 45.0, 55.0)
    done = call_script("reproduce.py", run_id)
    assert done.returncode == 1 and "-7.00 points, outside of [45.0, 55.0]" in done.stdout
    assert "Not reproduced" in done.stdout


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
