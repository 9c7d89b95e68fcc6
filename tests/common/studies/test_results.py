"""The table of a study's rows, from which its report is made."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from common.studies import declaration, results
from common.studies.status import Entry
from tests.support.techniques import TECHNIQUES

STUDY = {
    "name": "sizes",
    "description": "How the score rises with the data.",
    "techniques": ["lora", "bitfit"],
    "grid": {"max_train_samples": [200, 3000, 10000]},
    "seeds": [1, 2],
}


@pytest.fixture
def status():
    """Of a study on data with 2,500 training questions."""
    return SimpleNamespace(
        study=declaration.parse(STUDY, "sizes.yaml", TECHNIQUES),
        task=SimpleNamespace(metrics=("f1",)),
        plan=lambda row: SimpleNamespace(technique=row.technique, args=replace(row.args, data_dir="data")),
        size=lambda task, data_dir, split: {("extractive-qa", "data", "train"): 2500}[task, data_dir, split],
    )


def test_the_numbers_of_training_examples_are_those_that_there_are(status):
    """Points per doubling would else be those of data that nobody has."""
    rows = declaration.expand(status.study, status.study.stages[0], status.size)
    # The first of two rows with all of the data has failed.
    entries = [
        Entry(row, "failed" if "lora" in row.name and "3000" in row.name else "finished") for row in rows
    ]
    frame = results.table(status, entries)
    assert list(frame["max_train_samples"]) == 2 * [200, 200, 2500, 2500, 2500, 2500]
    kept = results.distinct(frame, status.study.axes)
    assert [(row["technique"], row["max_train_samples"], row["seed"]) for _, row in kept.iterrows()] == [
        (technique, size, seed) for technique in ("LoRA", "BitFit") for size in (200, 2500) for seed in (1, 2)
    ]
    assert set(kept["status"]) == {"finished"}
