"""docs/PYTHON.md does what it says, block by block, with a tiny model."""

import re

import mlflow
import pytest

from common.api import Comparison, Model, QuestionAnswerer, Run
from common.paths import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/PYTHON.md").read_text(), re.M | re.S)


@pytest.mark.long
def test_every_block_of_the_page_runs(small, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"SMALL": small}
    assert len(BLOCKS) == 5
    for block in BLOCKS:
        # The settings that make a training of the packaged model quick, in place of those of a tiny one.
        exec(re.sub(r'model_checkpoint="embedded".*?(?=\))', "**SMALL", block), names)  # noqa: S102
    assert isinstance(names["run"], Run) and isinstance(names["comparison"], Comparison)
    assert list(names["comparison"].table["technique"]) != [] and len(names["comparison"].table) == 2
    assert isinstance(names["qa"], QuestionAnswerer) and "answer" in names["qa"](
        question="Who?", context="Ada."
    )
    assert isinstance(names["model"], Model) and (folder / "my_data").is_dir()
    assert len(mlflow.search_runs(search_all_experiments=True, filter_string="status = 'FINISHED'")) >= 2
