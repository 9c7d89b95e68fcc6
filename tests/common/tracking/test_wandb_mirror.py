"""Weights & Biases gets what MLflow gets, offline."""

import json
import struct
import time
from importlib.util import find_spec

import pytest

from common.errors import UserError
from common.training.refusals import check
from common.training.settings import RunArgs, Technique

installed = pytest.mark.skipif(
    not find_spec("wandb"), reason="wandb is an option: pip install -r requirements-wandb.txt"
)


BLOCK = 2**15


def log_records(content):
    """The records of a log in LevelDB's format, behind a header of seven bytes."""
    at, parts = 7, []
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        if at + 7 + length > len(content):
            return
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        # Whole records are of kind 1, last parts of kind 4.
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def written(folder):
    """(config, history, summary, exit code) that an offline run left in its folder.

    Another process writes it and may be behind by a moment."""
    end = time.monotonic() + 20
    while (found := read(folder))[-1] is None and time.monotonic() < end:
        time.sleep(0.2)
    return found


def read(folder):
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    config, history, summary, code = {}, [], {}, None
    for content in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        updates = [*record.run.config.update, *record.config.update]
        config |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in updates}
        if record.history.item:
            items = record.history.item
            history.append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items})
        summary |= {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
        if record.HasField("exit"):
            code = record.exit.exit_code
    return config, history, summary, code


@installed
@pytest.mark.slow
def test_a_run_is_logged_to_both(recorded):
    run, _, folder = recorded
    config, history, summary, code = written(folder)
    assert code == 0
    assert (
        config["learning_rate"] == float(run.data.params["learning_rate"]) and config["technique"] == "LoRA"
    )
    curve = [(entry["step"], entry["train_loss"]) for entry in history if "train_loss" in entry]
    assert len(curve) > 2 and curve[-1][1] == pytest.approx(run.data.metrics["train_loss"])
    assert [entry["step"] for entry in history if "validation_f1" in entry] and any(
        "learning_rate" in e for e in history
    )
    assert any("loss_curve.path" in entry for entry in history)
    for name in ("test_f1", "test_f1_low", "test_exact_match", "training_seconds", "trainable_parameters"):
        assert summary[name] == pytest.approx(run.data.metrics[name])


@installed
def test_a_run_that_fails_is_logged_as_such(tmp_path, monkeypatch):
    from types import SimpleNamespace

    import wandb

    from common.tracking.wandb_mirror import mirrored

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    # It reads its environment once.
    wandb.teardown()
    seen = []
    run = SimpleNamespace(id="abc123", log_metrics=lambda values, step=None: seen.append((values, step)))
    with pytest.raises(RuntimeError):
        with mirrored(run, ["wandb"], "e", "LoRA", {"technique": "LoRA"}) as both:
            both.log_metrics({"train_loss": 2.0, "grad_norm": float("nan")}, step=3)
            raise RuntimeError("stopped")
    config, history, _, code = written(tmp_path)
    assert code == 1 and seen[0][1] == 3 and both.id == "abc123"
    assert (history[0]["train_loss"], history[0]["step"]) == (2.0, 3) and "grad_norm" not in history[0]


def test_mlflow_alone_is_the_rule():
    from common.tracking.wandb_mirror import mirrored

    run = object()
    with mirrored(run, ["mlflow"], "e", "LoRA", {}) as same:
        assert same is run


def test_what_cannot_be_logged_is_refused(monkeypatch):
    with pytest.raises(UserError, match="tensorboard.*mlflow, wandb"):
        check(Technique(), RunArgs(report_to=["mlflow", "tensorboard"]))
    monkeypatch.setattr("common.training.refusals.find_spec", lambda name: None)
    with pytest.raises(UserError, match="requirements-wandb.txt"):
        check(Technique(), RunArgs(report_to=["wandb"]))


def test_the_flag_takes_both(tmp_path):
    from common.training.command_line import parse
    from tests.support.techniques import TECHNIQUES

    parsed = parse(TECHNIQUES["lora"], ["--report_to", "mlflow", "wandb", "--gradient_norms"])[1]
    assert parsed.report_to == ["mlflow", "wandb"] and parsed.gradient_norms
    (tmp_path / "c.yaml").write_text("report_to: [mlflow, wandb]\n")
    assert parse(TECHNIQUES["lora"], ["--config", str(tmp_path / "c.yaml")])[1].report_to == [
        "mlflow",
        "wandb",
    ]
    assert parse(TECHNIQUES["lora"], [])[1].report_to == ["mlflow"]
