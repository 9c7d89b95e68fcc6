"""Training that starts from a model of the store: its weights whole, its head kept, its identity by content."""

import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch

from common.data import prepared
from common.errors import UserError
from common.inference import models as asking
from common.models import base, bundles
from common.models.families import FAMILIES
from common.serving import model_logging
from common.tracking import runs
from common.training import fingerprint, planning
from common.training.settings import RunArgs
from tests.support import stores, tampering, trained
from tests.support.questions import EXAMPLES
from tests.support.techniques import TECHNIQUES

ROWS = [{name: example[name] for name in ("question", "context")} for example in EXAMPLES]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder of a store with data, URI of a registered LoRA model)."""
    folder = tmp_path_factory.mktemp("start")
    with stores.in_force(folder):
        trained.prepare_data(folder)
        splits, record = prepared.load(folder / "data")
        id_ = trained.log_run(folder, tiny, record, splits["test"].to_list(), experiment="first")
        mlflow.register_model(f"runs:/{id_}/model", "stage")
        mlflow.MlflowClient().set_registered_model_alias("stage", "champion", "1")
        yield folder, id_


@pytest.mark.parametrize("uri", ["models:/stage@champion", "models:/stage/1", "runs:/{run}/model"])
def test_it_starts_where_the_stored_model_is(uri, world):
    uri = uri.format(run=world[1])
    checkpoint = planning.resolve_checkpoint(uri)
    assert checkpoint.name == uri.replace("@champion", "/1")
    assert Path(checkpoint.source).is_relative_to(world[0] / "mlruns")
    model, tokenizer = base.load_base(checkpoint, trained_head=True)
    served = asking.load(uri).predict(ROWS, top_k=5)
    settings = {
        "max_length": 96,
        "doc_stride": 16,
        "max_answer_length": 30,
        "n_best": 20,
        "null_threshold": 1.5,
    }
    info = bundles.BundleInfo(
        "x", "bert", "", "", "extractive-qa", "QuestionAnswering", settings | {"version": "v2.0"}
    )
    again = trained.predict(
        model.eval(), tokenizer, info, [e | {"id": str(i)} for i, e in enumerate(EXAMPLES)]
    )
    assert list(served["answer"]) == [prediction.text for prediction in again]
    assert served["score"].to_numpy() == pytest.approx([p.probability for p in again], abs=1e-5)


def test_any_technique_goes_on_top_with_the_trained_head(world):
    checkpoint = planning.resolve_checkpoint("models:/stage/1")
    model, _ = base.load_base(checkpoint)
    head = model.qa_outputs.weight.detach().clone()
    assert head.std() > 0.5
    adapted = base.apply(TECHNIQUES["ia3"]().method(FAMILIES["bert"]), model, FAMILIES["bert"])
    trained_head = adapted.base_model.model.qa_outputs.modules_to_save["default"].weight
    assert torch.equal(trained_head, head) and trained_head.requires_grad


def test_the_fingerprint_is_of_the_content(world):
    """The same weights give the same run, whatever named them and whenever the folder was made."""
    first = planning.resolve_checkpoint("models:/stage/1")
    before = fingerprint.checkpoint(first)
    shutil.rmtree(first.source)
    again = planning.resolve_checkpoint(f"runs:/{world[1]}/model")
    assert fingerprint.checkpoint(again) == before


@pytest.mark.long
def test_a_whole_run_goes_on_from_a_registered_model(world, tiny):
    from common.training.fit import fit

    args = RunArgs(
        model_checkpoint="models:/stage@champion",
        data_dir=str(world[0] / "data"),
        max_length=96,
        doc_stride=16,
        batch_size=4,
        output_dir=str(world[0] / "out"),
        precision="fp32",
        experiment_name="second",
    )
    run = mlflow.get_run(fit(TECHNIQUES["loha"](num_train_epochs=1), args))
    assert run.data.tags["checkpoint"] == "models:/stage/1"
    assert run.data.tags["checkpoint_requested"] == "models:/stage@champion"
    answers = asking.load(f"runs:/{run.info.run_id}/model").predict(ROWS)
    rows = {row["question"]: row["prediction"] for row in runs.predictions(run.info.run_id)}
    assert [rows[row["question"]] for row in ROWS] == list(answers["answer"])
    # The same start by another name is the same run.
    assert (
        fit(
            TECHNIQUES["loha"](num_train_epochs=1),
            replace(args, skip_finished=True, model_checkpoint="models:/stage/1"),
        )
        == run.info.run_id
    )


def test_virtual_tokens_and_onnx_are_refused(world, tiny, tmp_path):
    bundle, whole, *_ = trained.save(tmp_path, tiny, "prompt-encoder")
    with runs.start("first", "prompt", {}) as run:
        model_logging.log_model(run, bundle, whole, ROWS[0], {})
    with pytest.raises(UserError, match="whose trained parts cannot be merged"):
        planning.resolve_checkpoint(f"runs:/{run.id}/model")
    (tmp_path / "lora").mkdir()
    bundle, whole, _, _, info = trained.save(tmp_path / "lora", tiny)
    bundles.write_info(bundle, replace(info, runtime="onnx-int8"))
    with runs.start("first", "exported", {}) as run:
        logged = model_logging.log_bundle(bundle, ROWS[0], run_id=run.id, name="model")
    with pytest.raises(UserError, match="an ONNX version, whose weights cannot be trained"):
        planning.resolve_checkpoint(logged.model_uri)


def test_what_is_not_there_or_was_changed_is_named(world, tiny):
    with pytest.raises(UserError, match="--model_checkpoint models:/nothing@champion"):
        planning.resolve_checkpoint("models:/nothing@champion")
    splits, record = prepared.load(world[0] / "data")
    id_ = trained.log_run(world[0], tiny, record, splits["test"].to_list(), experiment="changed", seed=7)
    (logged,) = mlflow.search_logged_models(
        filter_string=f"source_run_id = '{id_}'", output_format="list",
        experiment_ids=[mlflow.get_run(id_).info.experiment_id],
    )  # fmt: skip
    file = next(tampering.folder_of(f"models:/{logged.model_id}").rglob("adapter_model.safetensors"))
    tampering.changed(file)
    with pytest.raises(UserError, match="adapter_model.safetensors was changed since it was logged"):
        planning.resolve_checkpoint(f"runs:/{id_}/model")
