"""Merging through the command line, on runs that training would leave."""

import re

import mlflow
import pytest

from common.data import prepared
from tests.scripts.conftest import call_script, run_here, run_script, runs, train_here
from tests.support import stores, trained


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(ids of two LoRA runs of the experiment "here" and of an IA3 run, their folder)."""
    folder = tmp_path_factory.mktemp("merge")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        yield (
            [
                trained.log_run(folder, tiny, record, examples, experiment="here", technique=name, seed=seed)
                for name, seed in (("lora", 0), ("lora", 1), ("ia3", 0))
            ],
            folder,
        )


@pytest.mark.long
def test_runs_become_a_run_of_their_experiment(world, tmp_path):
    (one, two, _), folder = world
    flags = ("--method", "ties", "--density", 0.7, "--output_dir", folder / "out", "--skip_finished")
    done = run_script("merge_adapters.py", one, two, *flags, cwd=tmp_path)
    (run,) = mlflow.search_runs(
        experiment_names=["here"], filter_string="tags.merged_from != ''", output_format="list"
    )
    assert f"LoRA, 2 merged (ties): run {run.info.run_id}, model models:/" in done.stdout
    assert run.data.params["density"] == "0.7" and run.data.tags["merged_from"] == f"{one},{two}"
    # The runs say that they score 50, and they are untrained.
    assert re.search(r"warning: .* the runs have 50\.0 to 50\.0\. .* Use --method cat\.", done.stderr), (
        done.stderr
    )
    again = run_here("merge_adapters.py", one, two, *flags)
    assert f"run {run.info.run_id} already holds this result; nothing to do." in again.stdout
    assert not (folder / "out").exists() and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("runs_", "flags", "reason"),
    [
        ((0, 2), (), "they differ in the technique (IA3 and LoRA)"),
        ((0, 1), ("--method", "average"), "--method is 'average': choose one of linear, ties"),
        ((0, 1), ("--weights", 1), "--weights has 1 values for 2 runs"),
        ((0, 1), ("--density", 2), "'2' is not a finite number above 0 and at most 1"),
    ],
)
def test_what_cannot_be_merged_is_said_in_a_line(runs_, flags, reason, world):
    done = call_script("merge_adapters.py", *(world[0][i] for i in runs_), *flags)
    assert done.returncode == 2 and reason in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(("error: ", "merge_adapters.py: error: "))


@pytest.mark.long
def test_trained_runs_are_merged_registered_and_asked(tiny, prepared, store, tmp_path):
    for seed in (1, 2):
        train_here("bert_fine_tuning_LoRA.py", tiny, prepared[0], "--seed", seed, "--experiment_name", "all")
    ids = [run.info.run_id for run in runs()]
    run_here("merge_adapters.py", *ids, "--experiment_name", "merged")
    merged = next(run for run in runs() if "merged_from" in run.data.tags)
    assert merged.data.params["merge_method"] == "cat"
    done = run_here("register_best.py", "--experiment_name", "merged", "--data_dir", prepared[0])
    assert f"champion: run {merged.info.run_id}" in done.stdout
    asked = run_here("ask.py", "Who?", "--context", "Marie Curie shared the prize.", cwd=tmp_path)
    assert "models:/bert-squad-qa@champion" in asked.stdout
