"""The studies that ship, and the one in the documentation."""

import re

import pytest
import yaml

from common.models.families import FAMILIES
from common.paths import ROOT
from common.studies import declaration
from common.tasks.table import refusal, task_of
from tests.support.declarations import SMALL, rows, size
from tests.support.techniques import TECHNIQUES

SHIPPED = sorted((ROOT / "studies").glob("*.yaml"))


def test_all_studies_that_ship_are_found():
    assert len(SHIPPED) == 7


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_study_is_valid(file, smoke):
    study = declaration.read(file, TECHNIQUES, smoke)
    assert study.name == file.stem + "-smoke" * smoke
    found = [row for stage in study.stages for row in declaration.expand(study, stage, size)]
    assert len({row.name for row in found}) == len(found)
    if smoke:
        assert all(row.args.max_test_samples <= 100 and row.technique.num_train_epochs <= 2 for row in found)
        assert (
            sum(stage.trials or len(declaration.expand(study, stage, size)) for stage in study.stages[:1])
            <= 8
        )
        assert "its scores mean nothing" in study.description


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_what_a_shipped_study_asks_for_exists(file):
    """No technique that its model's family refuses, for the models that the file names."""
    types = {"gpt2": "gpt2", "t5": "t5", "google/flan-t5-base": "t5", "embedded-distilbert": "distilbert"}
    for smoke in (False, True):
        study = declaration.read(file, TECHNIQUES, smoke)
        for row in (row for stage in study.stages for row in declaration.expand(study, stage, size)):
            model_type = types.get(row.args.model_checkpoint.replace("untrained-", ""), "bert")
            assert refusal(FAMILIES[model_type], row.technique.key, task_of(study.task)) is None
            row.technique.method(FAMILIES[model_type])


def test_the_shipped_sweeps_reach_what_they_must():
    study = declaration.read(ROOT / "studies/distilbert_qa_lora_vs_ia3.yaml", TECHNIQUES)
    assert max(study.stages[0].grids["ia3"]["learning_rate"]) > 3e-2
    gpt2 = declaration.read(ROOT / "studies/gpt2_lora_sweep.yaml", TECHNIQUES)
    found = declaration.expand(gpt2, gpt2.stages[0], size)
    assert len(found) == 4 * 2 * 3 and all(row.args.gradient_norms for row in found)


def test_the_leaderboard_has_every_technique_with_rates_of_its_own():
    study = declaration.read(ROOT / "studies/peft_on_encoders.yaml", TECHNIQUES)
    assert set(study.techniques.values()) == {kind for kind in TECHNIQUES.values() if not kind.needs}
    sweep, full, _ = study.stages
    assert all(3 <= len(grid["learning_rate"]) <= 4 and len(grid) == 1 for grid in sweep.grids.values())
    for entry, kind in study.techniques.items():
        rates = sweep.grids[entry]["learning_rate"]
        assert min(rates) <= kind.rates.small.value <= max(rates), entry
    assert full.seeds == (42, 43, 44) and full.fields.keys() == sweep.fields.keys()


def test_the_documented_example_is_a_study():
    text, named, stopping = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/STUDIES.md").read_text(), re.S)
    assert [row.title for row in rows(SMALL | yaml.safe_load(named))] == 3 * ["LoRA"] + 2 * [
        "LoRA, attention only"
    ]
    assert len(rows(SMALL | yaml.safe_load(stopping))) == 10
    content = yaml.safe_load(text)
    sweep, full = (rows(content, stage) for stage in (0, 1))
    assert len(sweep) == 6 + 1 and sweep[0]["max_train_samples"] == 100 and len(full) == 3 * (6 + 1)
    assert {row["dropout"] for row in full} == {0.1, None}
    assert rows(content, smoke=True)[0]["max_test_samples"] == 20
