"""Teachers that cannot teach a student are refused before anything is computed or logged."""

import json
import shutil

import mlflow
import pytest

from common.data import prepared
from common.errors import UserError
from common.training import fit, teachers
from common.training.refusals import check
from common.training.settings import RunArgs
from tests.support import stores, trained
from tests.support.techniques import TECHNIQUES

LORA = TECHNIQUES["lora"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(folder with data and a store that is in force, id of a LoRA run)."""
    folder = tmp_path_factory.mktemp("teachers")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        examples = prepared.load(folder / "data")[0]["test"].to_list()
        yield folder, trained.log_run(folder, tiny, record, examples, experiment="teachers")


def refused(world, tiny, reason, **fields):
    """A student of these settings is refused, without a run."""
    args = {"model_checkpoint": tiny("bert"), "experiment_name": "students", **trained.LENGTHS}
    args |= {"data_dir": str(world[0] / "data"), "output_dir": str(world[0] / "out")}
    with pytest.raises(UserError, match=reason):
        fit.fit(LORA(), RunArgs(**args | fields))
    assert not mlflow.search_runs(experiment_names=["students"], output_format="list")
    assert not (world[0] / "out").exists()


def test_a_teacher_that_cannot_read_the_data_is_refused(world, tiny, tmp_path):
    """Its vocabulary is in lower case, and it does not make texts so."""
    shutil.copytree(tiny("bert"), tmp_path / "cased")
    file = tmp_path / "cased" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["normalizer"]["lowercase"] = False
    file.write_text(json.dumps(content))
    refused(world, tiny, "--teacher .*is unknown .* to its tokenizer", teacher=str(tmp_path / "cased"))


def test_a_tokenizer_that_does_not_say_where_its_tokens_stand_is_refused(world, tiny, monkeypatch):
    def without_offsets(*args):
        found = original(*args)
        slow = type("Slow", (type(found.tokenizer),), {"is_fast": False})
        found.tokenizer.__class__ = slow
        return found

    original = teachers._of_checkpoint
    monkeypatch.setattr(teachers, "_of_checkpoint", without_offsets)
    refused(world, tiny, "--teacher .*a slow one, without offsets", teacher=tiny("roberta"))


def test_a_model_without_a_trained_head_is_refused(world, tiny, tmp_path):
    shutil.copytree(tiny("bert"), tmp_path / "bare")
    file = tmp_path / "bare" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": ["BertModel"]}))
    refused(
        world, tiny, "--teacher .*is a BertModel, not trained for extractive-qa", teacher=str(tmp_path / "bare")
    )  # fmt: skip


def test_a_teacher_that_reads_less_is_refused(world, tiny, tmp_path):
    import transformers

    config = transformers.AutoConfig.from_pretrained(tiny("bert"))
    config.max_position_embeddings = 64
    transformers.BertForQuestionAnswering(config).save_pretrained(tmp_path / "short")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{tiny('bert')}/{file}", tmp_path / "short")
    refused(world, tiny, "reads 64 tokens at once: use --max_length 64", teacher=str(tmp_path / "short"))
    shutil.copytree(tiny("roberta"), tmp_path / "other")
    file = tmp_path / "other" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 40}))
    refused(
        world, tiny, "reads 38 tokens at once, too few for --doc_stride 16", teacher=str(tmp_path / "other")
    )


def test_what_is_not_there_is_refused(world, tiny):
    refused(world, tiny, "--teacher runs:/0+/model cannot be read", teacher=f"runs:/{'0' * 32}/model")
    refused(world, tiny, "--teacher /nowhere: there is no such folder", teacher="/nowhere")


def test_the_content_of_a_teacher_is_that_of_its_files(world, tiny):
    """The same weights teach the same, whatever names them."""
    one = teachers.resolve(f"runs:/{world[1]}/model")
    mlflow.register_model(f"runs:/{world[1]}/model", "teaching")
    other = teachers.resolve("models:/teaching/1")
    assert one.content == other.content and other.name == "models:/teaching/1"
    assert teachers.resolve(tiny("bert")).content != one.content


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"task": "generative-qa", "teacher": "x"}, "--teacher is for extractive-qa.*token after token"),
        ({"teacher": "x", "pack_batches": True}, "--pack_batches"),
        ({"distillation_weight": 0.3}, "--distillation_weight is for runs with a --teacher"),
        ({"teacher": "x", "distillation_weight": 1.5}, "--distillation_weight is 1.5: it must be"),
        ({"teacher": "x", "distillation_temperature": 0.0}, "--distillation_temperature is 0.0: it must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, reason):
    with pytest.raises(UserError, match=reason):
        check(LORA(), RunArgs(**fields))
