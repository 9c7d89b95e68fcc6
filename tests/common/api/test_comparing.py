"""`compare` in Python."""

import mlflow
import numpy as np
import pytest

from common.api import compare
from common.errors import UserError
from tests.support.runs import log_finished
from tests.support.stores import in_force


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    with in_force(tmp_path_factory.mktemp("store")):
        questions = np.random.default_rng(0).random(40)
        log_finished("LoRA", questions, trainable=1e6)
        log_finished("IA3", questions * 0.8, trainable=3e4)
        log_finished("Standard", [1.0, 1.0])
        yield compare()
        mlflow.set_tracking_uri(None)


def test_the_table_has_intervals_and_paired_tests(compared):
    best, other = compared.table.to_dict("records")
    assert (best["technique"], other["technique"]) == ("LoRA", "IA3")
    assert other["f1_difference_low"] < other["f1_difference"] < other["f1_difference_high"] < 0
    assert 0 < other["f1_p"] < 0.05 and np.isnan(best["f1_p"])
    assert list(compared.shown["F1 - best [95%]"])[0] == "best"


def test_it_reads_well(compared):
    text, page = repr(compared), compared._repr_html_()
    assert "LoRA" in text and "Left out:\n  Standard" in text and "two-sided" in text
    assert page.count("<tr") == 3 and "Left out: Standard" in page and 'src="data:image/png;base64,' in page
    assert len(compared.figure.axes) == 1


def test_arguments_are_those_of_the_command(compared):
    with pytest.raises(UserError, match="holds no finished run"):
        compare("nothing-here")
    with pytest.raises(UserError, match="the finished runs here are for"):
        compare(task="classification", experiment_name=compared.compared.experiment)
