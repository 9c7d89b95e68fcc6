"""scripts/advise.py: what its door refuses, and from a user's data to advice, also after a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import mlflow
import pytest
import yaml

from common.api import advising
from common.paths import ROOT
from tests.scripts.conftest import call_script, run_here, run_script

FIELDS = {
    "max_length": 96,
    "doc_stride": 16,
    "num_train_epochs": 1,
    "logging_steps": 5,
    "max_validation_samples": 40,
}


@pytest.fixture
def config(tmp_path):
    """A file of fields for trainings of seconds."""
    file = tmp_path / "fields.yaml"
    file.write_text(yaml.safe_dump(FIELDS))
    return file


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--techniques", "lorra"], "--techniques lorra: there is no such technique; choose from standard"),
        (["--techniques", "peft"], "--techniques peft: there is no such technique; choose from standard"),
        (["--max_latency_ms", "0"], "argument --max_latency_ms: '0' is not a finite number above 0"),
        (["--budget_minutes", "soon"], "argument --budget_minutes: 'soon' is not a finite number above 0"),
        (["--smallest_difference", "-1"], "'-1' is not a finite number at least 0"),
        (["--task", "poetry"], "argument --task: invalid choice: 'poetry'"),
        (["--address", "HEAD:6379"], "--address is for --backend ray."),
        (["--json", "nowhere/advice.json"], "--json nowhere/advice.json: there is no folder"),
        (["--json", "."], "--json . is a folder: name a file in it."),
        (["--config", "nowhere.yaml"], "nowhere.yaml: No such file or directory."),
        ([], "the following arguments are required: --data_dir"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(flags, message, tmp_path):
    data = ["--data_dir", "data"] if flags else []
    done = call_script("advise.py", *data, *flags, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not list(tmp_path.iterdir())


def test_help_names_the_techniques_that_can_be_tried():
    shown = run_script("advise.py", "--help").stdout
    listed = shown.split("techniques:\n")[-1].splitlines()[0].strip().split(", ")
    assert listed == advising.choices() and "lora" in listed and "peft" not in listed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learning_rate: 1e-3", "sets learning_rate: take it out, it is varied."),
        ("seed: 3", "sets seed: take it out, use --seed."),
        ("batchsize: 3", "base.batchsize is not a field (did you mean batch_size?)"),
        ("- 3", "must hold 'field: value' lines."),
    ],
)
def test_fields_that_no_run_can_have_are_refused_with_their_file(
    content, message, tmp_path, prepared, tiny, store
):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    where = ("--data_dir", prepared[1], "--model_checkpoint", tiny("bert"), "--output_dir", tmp_path / "out")
    done = call_script("advise.py", *where, "--config", file)
    assert done.returncode == 2 and str(file) in done.stderr and message in done.stderr


@pytest.mark.long
def test_from_data_to_advice(prepared, tiny, store, config, tmp_path):
    """One amount of data only: there are few questions."""
    flags = ["--data_dir", prepared[1], "--model_checkpoint", tiny("bert"), "--config", config]
    flags += [
        "--techniques",
        "lora",
        "bitfit",
        "--output_dir",
        tmp_path / "out",
        "--json",
        tmp_path / "advice.json",
    ]
    flags += ["--max_latency_ms", "60000"]
    shown = run_script("advise.py", *flags).stdout
    found = json.loads((tmp_path / "advice.json").read_text())
    assert found["take"] in ("LoRA", "BitFit") and f"Take {found['take']}, learning rate" in shown
    assert "How sure:" in shown and "there was one amount of data only" in shown
    for cost in found["costs"].values():
        assert 0 < cost["latency_ms"] < 60000 and 0 < cost["stored_mib"] < cost["whole_mib"]
    assert len(runs()) == 6
    again = run_here("advise.py", *flags).stdout
    assert len(runs()) == 6 and json.loads((tmp_path / "advice.json").read_text()) == found
    assert "nothing to do" in again
    # What it says to type can be typed.
    script, *words = found["command"].split()[1:]
    assert script.endswith(".py") and "--learning_rate" in words
    # A bound that nothing keeps, and one that one technique keeps.
    done = run_here("advise.py", *flags, "--max_size_mb", "0.000001", check=False)
    assert done.returncode == 2 and "No technique is within the bounds: " in done.stderr
    between = sum(cost["stored_mib"] for cost in found["costs"].values()) / 2
    run_here("advise.py", *flags, "--max_size_mb", f"{between:.6f}")
    found = json.loads((tmp_path / "advice.json").read_text())
    assert found["take"] == "BitFit" and "stores" in found["excluded"]["LoRA"]
    assert len(runs()) == 6


@pytest.mark.long
def test_halving_goes_on_after_a_kill_and_trains_nothing_twice(tiny, store, config, tmp_path):
    data = tmp_path / "data"
    run_here("prepare_data.py", "--source", "sample", "--output_dir", data)
    command = [sys.executable, str(ROOT / "scripts" / "advise.py"), "--data_dir", str(data)]
    command += [
        "--model_checkpoint",
        tiny("bert"),
        "--config",
        str(config),
        "--json",
        str(tmp_path / "a.json"),
    ]
    command += ["--techniques", "lora", "bitfit", "head", "--output_dir", str(tmp_path / "out")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 600
    while len(list(tmp_path.glob("out/*/*/logs/*"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "a.json").read_text())
    amounts = [{each["examples"] for each in rung} for rung in found["rungs"]]
    total = found["training_examples"]
    assert [len(rung) for rung in found["rungs"]] == [3, 2, 2]
    assert amounts == [{round(total / 9)}, {round(total / 3)}, {total}]
    finished = runs()
    fingerprints = [run.data.tags["run_fingerprint"] for run in finished]
    assert len(finished) == len(set(fingerprints)) == 9 + 2 + 2
    assert len(found["comparisons"]) == 2 and found["points_per_doubling"]["last_two_rungs"]
    assert "More data: from" in done.stdout and found["sentences"][0].startswith("Take ")


def runs():
    """The finished trainings of the store in force."""
    filter_string = "attributes.status = 'FINISHED' and tags.technique != ''"
    return mlflow.search_runs(search_all_experiments=True, filter_string=filter_string, output_format="list")
