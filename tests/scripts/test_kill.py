"""SIGKILL at random moments, as benchmarks/kill.py has it; a few of its kills."""

import importlib.util
import sys

import pytest

from common.paths import ROOT


@pytest.mark.long
def test_a_training_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path, monkeypatch):
    """Data, weights, metrics, curves and answers bit for bit; one run, one model, no file that is no whole one."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("kill", ROOT / "benchmarks" / "kill.py")
    kill = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kill", kill)
    spec.loader.exec_module(kill)
    flags = kill.FLAGS.replace("--max_train_samples 60", "--max_train_samples 24").split()
    done = kill.run(3, 3, 1, tmp_path, "bert_fine_tuning_LoRA.py", flags, stages=("train",))
    assert done["lost"] == [] and done["kills"] == 3
