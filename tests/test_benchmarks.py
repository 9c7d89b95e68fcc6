"""Benchmarks that need a machine which tests do not have run at least on a small model and this one."""

import json
import subprocess
import sys

from common.paths import ROOT


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
