"""`fit` as a notebook calls it: again and again in one process, which it leaves as it was."""

import dataclasses
import os
import signal
import subprocess
import sys

import mlflow
import pytest

from common.api import fit, techniques
from common.errors import UserError
from common.paths import ROOT
from common.training import fit as training
from common.training import trainer
from common.training.settings import RunArgs


@pytest.fixture(scope="module")
def run(small):
    return fit("lora", r=4, **small)


@pytest.fixture
def parsed(monkeypatch):
    """What `fit` hands to the training, which is not carried out: (technique, run arguments), one for each call."""
    calls = []

    def record(technique, args, again):
        calls.append((technique, args))

    monkeypatch.setattr(training, "fit", record)
    return calls


def test_a_run_has_what_the_store_has(run):
    stored = mlflow.get_run(run.run_id)
    assert stored.info.status == "FINISHED" and stored.data.params["r"] == "4"
    assert list(run.scores) == ["f1", "exact_match"]
    score = run.scores["f1"]
    assert score.value == stored.data.metrics["test_f1"] and score.low <= score.value <= score.high
    assert len(run.predictions()) == run.summary.examples > 0
    assert run.url is None


def test_a_run_reads_well(run):
    assert repr(run).startswith("LoRA on train.json (") and run.run_id in repr(run)
    assert "F1 " in repr(run) and "[" in repr(run) and "\n" not in repr(run)
    page = run._repr_html_()
    assert "<th>95% interval</th>" in page and "<td>F1</td>" in page and run.run_id in page


def test_its_model_answers(run):
    found = run.load().answer("What pumps blood?", "The heart pumps blood through the body.")
    assert set(found) == {"answer", "score", "start", "end"}


def test_the_same_call_as_a_command_gives_the_same_run(run, small):
    """A second call in one process; `skip_finished` finds the run by its content."""
    assert fit("LoRA", r=4, skip_finished=True, **small).run_id == run.run_id


@pytest.mark.long
def test_the_command_line_finds_the_run_of_a_call(run, small):
    flags = [f"--{name}={value}" for name, value in (small | {"r": 4}).items()]
    script = [sys.executable, ROOT / "scripts/bert_fine_tuning_LoRA.py", *flags, "--skip_finished"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and f"run {run.run_id} already holds this result" in done.stdout, done.stderr


def test_an_interrupt_ends_the_training_and_not_the_process(small, folder, monkeypatch, capsys):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    settings = small | {"output_dir": folder / "interrupted", "seed": 7}
    step = trainer.TaskTrainer.training_step

    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.TaskTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit("ia3", **settings)
    assert handlers == [
        signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    ]
    (killed,) = mlflow.search_runs(
        search_all_experiments=True, filter_string="status = 'KILLED'", output_format="list"
    )
    message = capsys.readouterr().err
    assert "To go on: fit('ia3', " in message and "resume=True)" in message
    assert f"output_dir={str(settings['output_dir'])!r}" in message
    assert fit("ia3", resume=True, **settings).run_id == killed.info.run_id
    assert mlflow.get_run(killed.info.run_id).info.status == "FINISHED"


def test_defaults_are_those_of_the_flags(parsed):
    for key, kind in techniques().items():
        fit(key)
        fit(kind)
        for technique, args in parsed[-2:]:
            assert dataclasses.asdict(technique) == dataclasses.asdict(kind()) and args == RunArgs()


def test_values_are_read_as_flags_are(parsed, tmp_path):
    (tmp_path / "c.yaml").write_text("r: 2\nalpha: 3\n")
    fit(
        "lora",
        config=tmp_path / "c.yaml",
        r=8,
        gradient_norms=True,
        report_to=["mlflow"],
        seed=None,
        run_name="--x",
    )
    technique, args = parsed[0]
    assert (technique.r, technique.alpha, args.gradient_norms, args.seed, args.run_name) == (
        8,
        3,
        True,
        RunArgs().seed,
        "--x",
    )


@pytest.mark.parametrize(
    ("technique", "settings", "message"),
    [
        ("lora", {"rank": 8}, "'rank' is not a setting of LoRA"),
        ("lora", {"max_lenght": 8}, "did you mean 'max_length'?"),
        ("lora", {"r": 0}, "--r is 0: it must be at least 1"),
        ("lora", {"r": 1.5}, "invalid int value: '1.5'"),
        ("lora", {"targets": "some"}, "--targets is 'some'"),
        ("lora", {"batch_size": -1}, "--batch_size is -1"),
        ("loar", {}, "'loar' is not a technique: choose one of "),
        (int, {}, "is not a technique"),
        ("lora", {"data_dir": "/nowhere/at/all"}, None),
    ],
)
def test_what_is_wrong_is_said_in_one_line(technique, settings, message, parsed):
    if message is None:
        fit(technique, **settings)
        assert parsed
        return
    with pytest.raises(UserError) as caught:
        fit(technique, **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not parsed


def test_other_processes_of_a_launcher_get_nothing(monkeypatch):
    monkeypatch.setattr(training, "fit", lambda technique, args, again: None)
    assert fit("lora") is None


def test_importing_it_is_quick():
    code = "import sys, common.api; print(sorted({'torch', 'mlflow', 'pandas', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done
