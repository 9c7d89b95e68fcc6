"""`scripts/export.py`: a registered model leaves the store, and answers where this project is not."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import pytest
import torch
from safetensors.torch import load_file

from common.data import prepared as prepared_data
from common.export import source
from common.inference import models
from common.models.bundles import load_bundle
from common.registry import register
from tests.scripts.conftest import call_script
from tests.support import stores, trained
from tests.support.exported import alone
from tests.support.questions import EXAMPLES

ASKED = [e for e in EXAMPLES if e["answers"]["text"]]

PROGRAM = """
import json, sys
import torch
from safetensors.torch import save_file
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForQuestionAnswering.from_pretrained(sys.argv[1]).eval()
logits, answers = {}, []
for i, (question, context) in enumerate(json.loads(sys.argv[2])):
    inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = inputs.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        out = model(**inputs)
    start, end = out.start_logits[0], out.end_logits[0]
    logits[f"{i}.start"], logits[f"{i}.end"] = start, end
    inside = [k for k, part in enumerate(inputs.sequence_ids(0)) if part == 1]
    spans = [(a, b) for a in inside for b in inside if a <= b < a + 30]
    a, b = max(spans, key=lambda s: start[s[0]] + end[s[1]])
    answers.append(context[offsets[a][0] : offsets[b][1]])
save_file(logits, sys.argv[3])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(id of a LoRA's run, registered model) of a store with questions that all have an answer."""
    folder = tmp_path_factory.mktemp("world")
    with stores.in_force(folder), trained.checked_here():
        record = trained.prepare_data(folder, "v1.1")
        examples = prepared_data.load(folder / "data")[0]["test"].to_list()
        run_id = trained.log_run(folder, tiny, record, examples, experiment="squad-qa")
        prefix = trained.log_run(
            folder, tiny, record, examples, experiment="others", technique="prefix-tuning"
        )
        done = register.register_best("squad-qa")
        yield run_id, prefix, done.name


@pytest.mark.long
def test_a_champion_answers_where_this_project_is_not(world, tmp_path):
    run_id, _, name = world
    done = call_script("export.py", f"models:/{name}@champion", "--to", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the same logits for 3 texts" in done.stdout
    asked = [(e["question"], e["context"]) for e in ASKED]
    printed = alone(PROGRAM, tmp_path, tmp_path / "out", json.dumps(asked), tmp_path / "logits.safetensors")
    stored = source.opened(f"models:/{name}@champion", tmp_path / "copy")
    model, tokenizer, _ = load_bundle(stored.bundle)
    found = load_file(tmp_path / "logits.safetensors")
    for i, (question, context) in enumerate(asked):
        with torch.no_grad():
            out = model(**tokenizer(question, context, return_tensors="pt"))
        torch.testing.assert_close(found[f"{i}.start"], out.start_logits[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(found[f"{i}.end"], out.end_logits[0], atol=1e-4, rtol=0)
    served = models.load(f"models:/{name}@champion")
    assert json.loads(printed) == [served.answer(*texts)["answer"] for texts in asked]
    assert stored.run_id == run_id


@pytest.mark.slow
def test_every_name_of_a_model_leads_to_the_same_weights(world, tmp_path):
    """An alias, a version, a run, and a folder that MLflow downloaded, whose base lies in the store."""
    run_id, _, name = world
    version = mlflow.MlflowClient().get_model_version_by_alias(name, "champion").version
    local = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/model", dst_path=str(tmp_path / "download"))
    assert not list((tmp_path / "download").rglob("base"))
    wanted = None
    for i, model in enumerate((f"models:/{name}/{version}", run_id, f"runs:/{run_id}/model", local)):
        found = source.opened(model, tmp_path / str(i))
        assert (found.run_id, found.info.technique) == (run_id, "LoRA")
        weights = load_bundle(found.bundle, merge=True)[0].state_dict()
        wanted = wanted or weights
        assert all(tensor.equal(wanted[key]) for key, tensor in weights.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models:/nobody@champion", "nobody"),
        ("models:/{name}@nobody", "nobody"),
        ("runs:/" + 32 * "0" + "/model", "0000"),
        ("{prefix}", r"virtual tokens .*mlflow models serve"),
        ("my-typo", "there is no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(model, message, world, tmp_path):
    done = call_script("export.py", model.format(name=world[2], prefix=world[1]), "--to", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1 and re.search(message, done.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_changed_file_is_not_exported(world, tmp_path):
    run_id, _, _ = world
    found = mlflow.search_logged_models(
        filter_string=f"source_run_id = '{run_id}' AND name = 'model'", output_format="list",
        experiment_ids=[mlflow.get_run(run_id).info.experiment_id],
    )  # fmt: skip
    folder = Path(urlparse(found[0].artifact_location).path)
    file = next(folder.rglob("adapter_model.safetensors"))
    kept = tmp_path / "kept"
    shutil.copy(file, kept)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    try:
        done = call_script("export.py", run_id, "--to", tmp_path / "out")
    finally:
        shutil.copy(kept, file)
    assert done.returncode == 2 and "was changed" in done.stderr and not (tmp_path / "out").exists()
