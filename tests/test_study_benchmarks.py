"""Benchmarks of studies and of what surrounds a training run on a small model and this machine."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from common.errors import UserError
from common.paths import ROOT
from common.reports.result_tables import read
from common.scoring.uncertainty import Spread, paired_difference
from common.studies import declaration
from tests.support.benchmarks import copied, module, written
from tests.support.techniques import TECHNIQUES


def test_time_to_decision_runs_studies_and_says_which_is_best(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    benchmark = module("time_to_decision")
    args = SimpleNamespace(questions=50, tested=20, seeds=[1, 2], max_length=128, data_dir=tmp_path)
    studies = {}
    for way in benchmark.WAYS:
        file = tmp_path / "study.yaml"
        file.write_text(benchmark.study_of(way, args))
        studies[way] = declaration.read(file, TECHNIQUES)
    stages = {way: study.stages[0] for way, study in studies.items()}
    assert [bool(stage.stop) for stage in stages.values()] == [False, True, True]
    runs = {way: declaration.expand(study, stages[way], "small") for way, study in studies.items()}
    assert all(len(found) == 12 and found[0].args.max_train_samples == 50 for found in runs.values())
    assert [found[0].args.precision for found in runs.values()] == ["auto", "auto", "bf16"]
    frame = pd.DataFrame(
        {
            "technique": ["LoRA", "LoRA", "IA3", "IA3", "LoHa"],
            "status": ["finished", "finished", "finished", "stopped", "failed"],
            "best_validation_f1": [50.0, 52, 50.5, None, None],
            "training_seconds": [10.0, 11, 9, None, None],
        }
    )
    found = benchmark.found(frame)
    assert (found["best"], found["runs"], found["planned"], found["training"]) == ("LoRA", 3, 5, 30)
    assert found["scores"] == {"LoRA": 51, "IA3": 50.5} and found["runs_of"] == {"LoRA": 2, "IA3": 1}
    rows = list(
        benchmark.rows([{"way": "a", "seconds": 90.0} | found, {"way": "b", "seconds": 30.0} | found])
    )
    assert written(copied(tmp_path, "time_to_decision"), rows) == [
        "| a | 1:30 | | 3 | 0:30 | LoRA |",
        "| b | 0:30 | 3.0 | 3 | 0:30 | LoRA |",
    ]


def test_a_recorded_study_is_replayed_from_its_questions(tmp_path, monkeypatch, capsys):
    """Two rates that are far behind, one of them slow: their later seeds are saved, and the conclusion stays."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    rows = []
    for rate, right, seconds in (("0.001", 80, 1.0), ("0.1", 40, 1.0), ("1", 20, 3.0)):
        for seed in (1, 2, 3):
            name = f"lora-learning_rate={rate}-seed={seed}"
            rows.append(
                {
                    "stage": "runs",
                    "name": name,
                    "seed": seed,
                    "status": "finished",
                    "training_seconds": seconds,
                }
            )
            folder = tmp_path / "rates" / "runs" / name / "predictions"
            folder.mkdir(parents=True)
            each = {str(i): {"f1": float(i < right + seed)} for i in range(100)}
            (folder / "validation_scores.json").write_text(json.dumps(each))
    pd.DataFrame(rows).to_csv(tmp_path / "rates" / "study.csv")
    flags = ["--studies", str(tmp_path / "rates"), "--draws", "40", "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", ["early_stopping.py", *flags])
    benchmark = module("early_stopping")
    benchmark.main()
    assert "| rates" in capsys.readouterr().out
    (row,) = read(tmp_path / "found.json")["rows"]
    assert (row["candidates"], row["seeds"], row["agreed"], row["same_name"]) == (3, 3, 100, 100)
    assert row["compute"] == pytest.approx(100 / 3, abs=0.1) and 90 < row["agreed_low"] < 95
    rows[0]["status"] = "failed"
    pd.DataFrame(rows).to_csv(tmp_path / "rates" / "study.csv")
    with pytest.raises(UserError, match="rows that are not finished"):
        benchmark.main()


@pytest.mark.long
def test_a_script_is_timed_until_its_first_step_in_the_parts_that_its_checkout_has(tmp_path, monkeypatch):
    common = tmp_path / "common"
    for name, content in {
        "training/fit.py": "import time; time.sleep(0.3)",
        "tracking/store.py": "import time\ndef configure(): time.sleep(0.2)",
        "tracking/runs.py": "def earlier_name(): pass",
    }.items():
        (common / name).parent.mkdir(parents=True, exist_ok=True)
        (common / name).write_text(content)
    script = tmp_path / "scripts" / "bert_fine_tuning_X.py"
    script.parent.mkdir()
    script.write_text(
        "import sys; sys.path.insert(0, str(sys.path[0]) + '/..')\n"
        "import common.training.fit, torch\n"
        "from common.tracking import runs, store\n"
        "store.configure()\n"
        "torch.optim.SGD([torch.nn.Parameter(torch.ones(1))]).step()\n"
        "open(sys.argv[sys.argv.index('--data_dir') + 1], 'w')\n"
    )
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    found = module("first_step").started(script, tmp_path / "not-written", tmp_path / "mlflow.db")
    assert found.keys() == {"seconds", "cpu", "imports", "opening"}
    assert 0.3 <= found["imports"] < found["seconds"] and 0.2 <= found["opening"] < found["seconds"]
    assert not (tmp_path / "not-written").exists(), "it went on after the step"
    rows = [
        {"technique": "x", "store": "new", "checkout": name, "round": round_, "seconds": seconds, "cpu": 1.0}
        for round_, of in enumerate([(1.0, 3.0), (2.0, 4.0), (9.0, 9.0)])
        for name, seconds in zip(("this", "other"), of, strict=True)
    ]
    (row,) = module("first_step").summary(rows)
    assert (row["seconds"], row["other_seconds"], row["seconds_ratio"]) == (2.0, 4.0, 2.0)
    assert row["cpu_ratio"] == 1.0 and "imports" not in row


CHECKOUT = {
    "studies/row_starter": """
import contextlib
class Starter(contextlib.nullcontext):
    def __init__(self): super().__init__(self)
    def ready(self): pass
    start = "fork"
""",
    "studies/folder": """
import contextlib, subprocess, sys
class Folder:
    def __init__(self, path): pass
    held = contextlib.nullcontext
    def run(self, command, name, start):
        assert start == "fork"
        return subprocess.run([sys.executable, *command]).returncode, "?"
""",
    "tracking/runs": """
import pandas
def finished_runs(experiment):
    return pandas.DataFrame({"run_name": [f"row-{i}" for i in range(3)], "training_seconds": [0.0, 0.3, 0.3]})
""",
    "tracking/store": "def configure(): pass",
}


def test_what_a_row_costs_beside_its_training_is_that_of_the_checkout(tmp_path, monkeypatch):
    for name, text in CHECKOUT.items():
        file = tmp_path / "common" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "scripts").mkdir()
    used = "import time\nbegan = time.process_time()\nwhile time.process_time() < began + 0.4: pass\n"
    (tmp_path / "scripts" / "bert_fine_tuning_LoRA.py").write_text(used)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    found = module("row_overhead").rows(tmp_path, tmp_path / "data", 2)
    assert [row["training"] for row in found] == [0.3, 0.3]
    assert all(row["beside"] > 0.1 and row["cpu"] > 0.35 for row in found)
    measured = [
        {"what": "study", "checkout": name, "seconds": seconds, "cpu": 1.0}
        for name, seconds in (("this", 1.0), ("other", 2.0), ("other", 6.0), ("this", 2.0))
    ]
    (line,) = module("row_overhead").summary(measured)
    assert (line["seconds"], line["other_seconds"], line["seconds_ratio"]) == (1.5, 4.0, 2.5)
    assert line["cpu_ratio"] == 1.0


def test_the_table_of_a_sweep_names_each_techniques_best_rate(tmp_path, monkeypatch):
    """What the best one is, by validation alone; its difference, paired by question; tests at that rate alone, by seed."""
    each = {
        ("LoRA", 1e-3): [1, 1, 1, 0],
        ("LoRA", 4e-3): [1, 0, 0, 0],
        ("IA3", 1e-2): [1, 1, 0, 0],
        ("IA3", 1e-1): [0] * 4,
    }
    rows = []
    for (technique, rate), found in each.items():
        name = f"{technique}-{rate}"
        place = tmp_path / "runs" / name / "predictions"
        place.mkdir(parents=True)
        scores = {str(i): {"f1": value} for i, value in enumerate(found)}
        # In another order: questions are paired by their ids.
        (place / "validation_scores.json").write_text(
            json.dumps(dict(sorted(scores.items(), reverse=rate > 5e-3)))
        )
        rows.append(("sweep", name, technique, rate, 42, 25.0 * sum(found), 99.0 if rate == 4e-3 else 1.0))
    tested = {
        ("LoRA", 1e-3, 42): [1, 1, 1, 0],
        ("LoRA", 1e-3, 43): [1, 1, 0, 0],
        ("IA3", 1e-2, 43): [1, 0, 0, 0],
        ("IA3", 1e-1, 42): [0, 0, 0, 0],
    }
    for (technique, rate, seed), found in tested.items():
        name = f"full-{technique}-{rate}-{seed}"
        place = tmp_path / "runs" / name / "predictions"
        place.mkdir(parents=True)
        answers = [{"id": str(i), "f1": value} for i, value in enumerate(found)]
        (place / "test.json").write_text(json.dumps(answers[:: 1 if seed == 42 else -1]))
        rows.append(("full", name, technique, rate, seed, 0.0, 25.0 * sum(found)))
    names = ["stage", "name", "technique", "learning_rate", "seed", "best_validation_f1", "test_f1"]
    frame = pd.DataFrame(rows, columns=names).assign(
        status="finished", trainable_parameters=7, adapter_mib=0.5
    )
    frame.to_csv(tmp_path / "study.csv", index=False)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    lora, ia3 = module("sweep_table").table(tmp_path, "sweep", "LoRA", "f1")
    assert (lora["technique"], lora["rates"], lora["scores"]) == ("LoRA", "**1e-3**, 4e-3", "**75.0**, 25.0")
    assert "difference" not in lora and ia3["difference"] == [-25.0, -75.0, 0.0]
    assert ia3["gpu_windows"] > 0 and ia3["validation"][0] == 50
    lora, ia3 = module("sweep_table").tests(tmp_path, "sweep", "LoRA", "f1")
    assert (lora["seeds"], lora["mean"][0], ia3["seeds"]) == ("42: 75.0, 43: 50.0", 62.5, "43: 25.0")
    # One seed has an interval too: the other technique's seeds tell how much seeds differ.
    spread, both = Spread(312.5, 1), np.array([[100, 100, 100, 0], [100, 100, 0, 0]])
    expected = paired_difference(np.array([[100, 0, 0, 0]]), both, spread)
    assert ia3["difference"] == [round(expected[key], 1) for key in ("difference", "low", "high")]
    assert ia3["difference"][0] == -37.5


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--data_dir", "none"], "no such folder"),
        (["--data_dir", ".", "--ways", "before, every run"], "--against"),
    ],
)
def test_time_to_decision_refuses_what_it_cannot_measure(flags, why, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["time_to_decision.py", *flags])
    with pytest.raises(SystemExit):
        module("time_to_decision").main()
    assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_study_is_measured_until_its_report(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    data = tmp_path / "data"
    prepare = [sys.executable, ROOT / "scripts/prepare_data.py", "--source", "sample", "--output_dir", data]
    subprocess.run(prepare, check=True, capture_output=True)
    flags = ["--data_dir", str(data), "--questions", "8", "--tested", "4", "--max_length", "96"]
    monkeypatch.setattr(
        sys, "argv", ["time_to_decision.py", *flags, "--seeds", "1", "2", "--ways", "decided, bf16"]
    )
    module("time_to_decision").main()
    report = json.loads(capsys.readouterr().out)
    (measured,) = report["measured"]
    assert 6 <= measured["runs"] <= measured["planned"] == 12 and len(measured["scores"]) == 6
    assert 0 < measured["training"] < measured["seconds"] and report["rows"][0]["best"] in measured["scores"]
