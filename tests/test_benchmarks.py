"""Benchmarks that need a machine which tests do not have run at least on a small model and this one."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch

from common.data import labelled_texts
from common.models import bundles
from common.paths import ROOT
from common.reports.result_tables import markdown, read
from common.serving import model_logging, stored_code
from common.tracking import runs
from tests.support import stores, trained
from tests.support.benchmarks import copied, module, written
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


@pytest.fixture
def table(tmp_path):
    return partial(copied, tmp_path)


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
    with stores.in_force(tmp_path):
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
