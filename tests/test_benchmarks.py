"""Benchmarks that need a machine which tests do not have run at least on a small model and this one."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from common.data import labelled_texts
from common.errors import UserError
from common.models import bundles
from common.paths import ROOT
from common.reports.result_tables import markdown, read, save
from common.scoring.uncertainty import Spread, paired_difference
from common.serving import model_logging, stored_code
from common.tracking import runs
from tests.support import trained
from tests.support.texts import make_texts, write_csv


@pytest.mark.long
def test_the_gpu_benchmark_runs_without_one(tmp_path):
    flags = "--shapes tiny --techniques lora prefix --batch_size 4 --batches 2 --rounds 1 --windows 64 --max_length 96"
    ways = ["recipe fp32", "recipe bf16", "suite"]
    subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", *flags.split(), "--ways", *ways]
        + ["--output", tmp_path / "gpu.json"],
        check=True,
        capture_output=True,
    )
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [each["technique"] for each in found] == ["LoRA", "Prefix tuning"]
    for each in found:
        assert all(each["windows_per_second"][way] > 0 and each["utilisation"][way] > 0 for way in ways)
        assert set(each["ratio"]) == set(ways) - {"suite"} and each["device"] == "cpu"
    assert (tmp_path / "gpu.md").read_text().count("| tiny |") == 6


def module(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def table(tmp_path):
    """Copies a table's file from docs/results/, to be written over."""

    def copy(name):
        shutil.copy(ROOT / "docs" / "results" / f"{name}.json", tmp_path)
        return tmp_path / f"{name}.json"

    return copy


def written(file, rows):
    """The lines of a table after its rows were replaced."""
    save(file, rows, {"command": "x"})
    return markdown(read(file)).splitlines()[2:]


@pytest.mark.long
def test_a_benchmark_writes_its_table(table):
    file = table("decoding")
    before = read(file)
    flags = ["--features", "200", "--repeats", "1"]
    subprocess.run(
        [sys.executable, ROOT / "benchmarks/decoding.py", *flags, "--json", file],
        check=True,
        capture_output=True,
    )
    found = read(file)
    assert found["columns"] == before["columns"] and len(found["rows"]) == 4
    assert found["provenance"]["command"] == "python benchmarks/decoding.py --features 200 --repeats 1"
    assert found["provenance"].keys() >= {"machine", "versions", "commit", "date", "data", "seeds"}
    assert re.search(r"\| plain Python lists \| v2.0 \| \d+\.\d \(", markdown(found))


@pytest.mark.long
def test_both_ways_of_writing_answers_write_the_same(table):
    file = table("generation")
    flags = [
        "--techniques",
        "lora",
        "--questions",
        "20",
        "--rounds",
        "1",
        "--shapes",
        "tiny GPT-2",
        "tiny T5",
    ]
    command = [sys.executable, ROOT / "benchmarks/generation.py", *flags, "--batch_size", "8", "--json", file]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["measured"]
    assert all(each["differing"] == 0 and each["different_answers"] > 3 for each in found)
    assert [each["technique"] for each in read(file)["rows"]] == ["LoRA", "LoRA"]


@pytest.mark.long
def test_every_family_is_measured_with_each_way(table):
    file = table("families")
    before = [(each["family"], each["technique"]) for each in read(file)["rows"]]
    flags = ["--batch_size", "2", "--length", "40", "--batches", "1", "--rounds", "1"]
    subprocess.run(
        [sys.executable, ROOT / "benchmarks/families.py", *flags, "--json", file],
        check=True,
        capture_output=True,
    )
    rows = read(file)["rows"]
    assert [(each["family"], each["technique"]) for each in rows] == before
    for each in rows:
        assert min(each[way] for way in ("plain", "suite", "suite_bf16")) > 0
        # Rates are kept to two places.
        assert each["suite_against_plain"] == pytest.approx(each["suite"] / each["plain"], rel=0.02)


def test_end_to_end_writes_its_tables(table, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    run = {
        "seconds": {"process": 76.4, "first_step": 13.5, "training": 50, "evaluation": 7},
        "train_windows": 800,
        "test_windows": 300,
        "peak_memory_mib": 2799.2,
        "size_mib": 86.09,
        "f1": [36.2, 32.9, 39.4],
    }
    ratio = {"median": 3.8, "lowest": 3.7, "highest": 3.9}
    result = {
        "runs": {"lora: suite": [run], "lora: peft": [run]},
        "ratios_of_seconds": {"lora: peft": dict.fromkeys(("process", "training", "evaluation"), ratio)},
    }
    rows = list(module("end_to_end").rows(result))
    peer = {
        "end_to_end": "| LoRA | peft | 76 | 3.8 (3.7 to 3.9) | 13.5 | 16.0 | 42.9 | 2,799 |",
        "end_to_end_adapters": "| LoRA | peft | 76 | 3.8 (3.7 to 3.9) | 13.5 | 16.0 | 42.9 | 2,799 |",
        "end_to_end_small": "| LoRA | peft | 76 | 3.8 (3.7 to 3.9) | 3.8 (3.7 to 3.9) | 3.8 (3.7 to 3.9) |",
        "time_to_f1": "| LoRA | peft | 76 | 50 | 36.2 [32.9, 39.4] |",
    }
    for name, line in peer.items():
        assert written(table(name), rows)[-1] == line


def test_answering_and_the_store_write_their_tables(table, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    ratio = {"median": 1.5, "lowest": 1.4, "highest": 1.6}
    run = {"median_ms": 25.1, "p95_ms": 40.2, "questions_per_second": 48.3}
    ratios = {"torch": ratio, "pipeline": ratio}
    result = {"runs": {"torch": [run], "pipeline": [run]}}
    result |= {f"{what}_ratio_to_pipeline": ratios for what in ("latency", "throughput")}
    assert written(table("answering"), list(module("answering").rows(result))) == [
        "| torch | 25.1 | 40.2 | 48.3 | 1.50 (1.40 to 1.60) | 1.50 (1.40 to 1.60) |",
        "| pipeline | 25.1 | 40.2 | 48.3 | 1 | 1 |",
    ]
    measured = {"writers": 4, "p95_ms": 128, "longest_ms": 1860, "errors": 0, "lost_steps": 1}
    rows = [
        {"store": store, "writes_per_second": rate, **measured}
        for store, rate in (("sqlite", 58), ("team", 29))
    ]
    assert written(table("store"), module("store").figures(rows, [4])) == [
        "| 4 | 58 | 128 | 1,860 | 1 | 29 | 128 | 1,860 | 1 | 0.50 |"
    ]


def test_answers_that_differ_from_the_pipelines_are_counted_by_their_reason(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    compared = module("pipeline_answers").compared
    given = {
        name: {"answer": name, "start": 0, "end": len(name), "score": 0.5} for name in ("a", "b", "the b")
    }
    questions = [{"id": str(i), "answers": {"text": ["b"]}} for i in range(5)]
    names = {"default": "a a a a b".split(), "unmerged": "a b a a b".split()}
    found = {
        "windows": [1, 1, 2, 1, 1],
        "answers": {way: [given[name] for name in each] for way, each in names.items()},
    }
    found["answers"]["unmerged"] = [each | {"score": 0.45} for each in found["answers"]["unmerged"]]
    own = [given[name] | {"score": 0.4} for name in ("a", "b", "b", "b", "the b")]
    row = compared(own, found, ["unmerged"], questions)
    assert row["equal"] == row["equal_text"] == 20 and row["equal_normalized"] == 40
    assert row["f1_own"] == 80 and row["f1_pipeline"] == 20
    # Of spans, whose scores are not added up.
    assert row["score_apart"] == pytest.approx(0.05)
    assert (row["unmerged"], row["windows"], row["other"], row["tokens"]) == (1, 1, 2, 0)


def test_other_tokens_and_logits_of_optimum_are_seen(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    compared = module("optimum_onnx")
    own = {"0.input_ids": torch.tensor([[1, 2]]), "0.logits": torch.tensor([[0.5, 0.0]])}
    assert compared.same_tokens([[[1, 2]]], own) and not compared.same_tokens([[[1, 3]]], own)
    for logits, apart in (
        ([[0.5, 0.25]], 0.25),
        ([[0.5]], float("inf")),
        ([[0.5, float("nan")]], float("inf")),
    ):
        assert compared.furthest([{"logits": logits}], own) == apart


def test_the_scale_benchmark_asks_for_its_file(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "argv", ["scale.py"])
    with pytest.raises(SystemExit) as left:
        module("scale").main()
    assert left.value.code == 2 and "--train_file is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_coverage_is_measured_for_pairs_and_refused_for_sets_of_labels(tmp_path, tiny, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    coverage = module("coverage")
    rows = [
        {"text": e["text"], "text_pair": "The heart.", "label": ("negative", "positive")[e["label"]]}
        for e in make_texts(40)
    ]
    half = write_csv(tmp_path / "train.csv", rows), write_csv(tmp_path / "test.csv", rows[::2])
    labelled_texts.prepare_files(*half, tmp_path / "data", validation_share=0.3)
    uris = []
    with trained.store(tmp_path):
        for multi_label in (False, True):
            place = tmp_path / f"model-{multi_label}"
            place.mkdir()
            bundle, base, *_ = trained.save_classifier(place, tiny, multi_label=multi_label, pairs=True)
            promises = {"confidence": 0.95, "examples": 9, "thresholds": [[0.1, 0.0], [0.01, None]]}
            info = bundles.read_bundle(bundle)
            bundles.write_info(bundle, replace(info, settings={**info.settings, "abstention": promises}))
            with runs.start("coverage", f"{multi_label}", {}) as run:
                example = {name: rows[0][name] for name in ("text", "text_pair")}
                uris.append(model_logging.log_model(run, bundle, base, example, {}))
        found = coverage.measured(uris[0], tmp_path / "data", None)
        answers = stored_code.load(uris[0]).predict(pd.DataFrame(rows[::2])[["text", "text_pair"]])
        right = (answers["label"] == [row["label"] for row in rows[::2]]).mean()
        assert 0 < right < 1 and found["score"] == pytest.approx(100 * right)
        all_, none = found["promises"]
        assert (all_["coverage"], all_["error"]) == (1, pytest.approx(1 - right))
        assert (none["answered"], none["error"]) == (0, None)
        assert re.search(r"\| LoRA +\| +10% \| +0 \| +100.0% \|", coverage.tables([found]))
        with pytest.raises(SystemExit, match="gives no confidence"):
            coverage.measured(uris[1], tmp_path / "data", None)


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
