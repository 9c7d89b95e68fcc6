"""The comparison of an experiment, as text and files; `scripts/compare.py` and `common.api.compare` print it."""

import numpy as np
import pytest

from common.errors import UserError
from common.tracking.compared import compare_experiment
from tests.support.runs import log_finished
from tests.support.stores import in_force


@pytest.fixture
def experiment(tmp_path):
    with in_force(tmp_path):
        yield


def test_nothing_to_compare_is_explained(experiment):
    with pytest.raises(UserError, match="holds no finished run. Train first, for example: "):
        compare_experiment()


def test_text_and_files_hold_the_same_table(experiment, tmp_path):
    questions = np.random.default_rng(0).random(30)
    for name, factor in (("LoRA", 1.0), ("IA3", 0.5)):
        log_finished(name, factor * questions)
    found = compare_experiment()
    assert found.write(tmp_path / "out") == ["comparison.md", "comparison.csv", "f1_against_parameters.png"]
    score = f"{found.table['test_f1'][0]:.1f}"
    assert score in found.as_text() and score in (tmp_path / "out" / "comparison.md").read_text()
    assert found.as_text().startswith(found.title)
    assert found.decisive and found.decisive[0] in found.as_text()
    assert f"- {found.decisive[0]}\n" in (tmp_path / "out" / "comparison.md").read_text()
