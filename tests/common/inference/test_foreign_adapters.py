"""Adapters of anybody's: PEFT's own answers, and what cannot be used in one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from common.inference import foreign, models
from tests.support.foreign_adapters import CONFIGS, stock
from tests.support.questions import EXAMPLES

ROWS = [{name: example[name] for name in ("question", "context")} for example in EXAMPLES]


@pytest.fixture(scope="module")
def lora(tiny, tmp_path_factory):
    """(folder of a stock LoRA adapter, its base)."""
    folder = tmp_path_factory.mktemp("lora")
    stock(folder, tiny("bert"))
    return folder, tiny("bert")


@pytest.fixture
def copied(lora, tmp_path):
    """A copy of it that may be changed."""
    return shutil.copytree(lora[0], tmp_path / "adapter"), lora[1]


def inputs_of(tokenizer, names=None):
    asked = tokenizer(
        [row["question"] for row in ROWS],
        [row["context"] for row in ROWS],
        padding=True,
        return_tensors="pt",
        return_token_type_ids=True,
    )
    return {name: asked[name] for name in names or asked}


@pytest.mark.parametrize("kind", CONFIGS)
def test_its_logits_are_those_of_pefts_own_model(kind, tiny, tmp_path):
    """PEFT's own leaves segment ids out, in training too: so does the merged model."""
    theirs, tokenizer = stock(tmp_path, tiny("bert"), kind)
    found = foreign.open_(None, tmp_path)
    with torch.no_grad():
        expected = theirs(**inputs_of(tokenizer))
        ours = found.model(**inputs_of(found.tokenizer, found.tokenizer.model_input_names))
    assert "token_type_ids" not in found.tokenizer.model_input_names
    for name in ("start_logits", "end_logits"):
        torch.testing.assert_close(ours[name], expected[name], atol=1e-4, rtol=1e-3)
    # The adapter and the head are in the weights: without them the logits are others.
    from transformers import AutoModelForQuestionAnswering

    plain = AutoModelForQuestionAnswering.from_pretrained(tiny("bert")).eval()
    with torch.no_grad():
        bare = plain(**inputs_of(found.tokenizer, ["input_ids", "attention_mask"])).start_logits
    assert not torch.allclose(bare, ours.start_logits, atol=1e-2)


def test_an_adapter_of_pefts_generic_model_keeps_the_segment_ids(tiny, tmp_path):
    theirs, tokenizer = stock(tmp_path, tiny("bert"), task_type=None, modules_to_save=["qa_outputs"])
    found = foreign.open_(tiny("bert"), tmp_path)
    asked = inputs_of(tokenizer)
    assert found.head == "QuestionAnswering" and set(found.tokenizer.model_input_names) == set(asked)
    with torch.no_grad():
        torch.testing.assert_close(
            found.model(**asked).start_logits, theirs(**asked).start_logits, atol=1e-4, rtol=1e-3
        )


def test_it_is_asked_like_any_model(lora, tmp_path):
    folder, base = lora
    found = foreign.open_(base, folder)
    found.model.save_pretrained(tmp_path)
    found.tokenizer.save_pretrained(tmp_path)
    model, merged = models.load(base, adapter=str(folder)), models.load(str(tmp_path))
    answers = list(model.predict(ROWS)["answer"])
    assert answers == list(merged.predict(ROWS)["answer"]) and len(set(answers)) > 2
    assert model.name == f"{folder} on {base}" and model.origin.always_answers
    assert "adapter" in model.origin.content and model.origin.content != merged.origin.content
    assert list(models.load(None, adapter=str(folder)).predict(ROWS)["answer"]) == answers


def test_a_classifiers_labels_are_counted_in_its_head(tiny, tmp_path):
    kind = ("lora", "SequenceClassification")
    stock(tmp_path / "bert", tiny("bert"), *kind, labels=3)
    # The layer in front of the labels is new in this base, and PEFT saves the last one alone.
    with pytest.raises(UserError, match="hold no trained head .bert.pooler"):
        foreign.open_(None, tmp_path / "bert")
    targets = {"target_modules": ["q_lin", "v_lin"]}
    theirs, tokenizer = stock(tmp_path, tiny("distilbert"), *kind, labels=3, **targets)
    model = models.load(None, adapter=str(tmp_path))
    asked = tokenizer([row["context"] for row in ROWS], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"]).logits
    found = model.predict([{"text": row["context"]} for row in ROWS])
    assert list(found["label"]) == [f"LABEL_{i}" for i in logits.argmax(-1)]


def change(folder, **fields):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def weights(folder, change):
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


def rename(folder, _):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda f, _: (f / "adapter_config.json").unlink(), "holds no adapter_config.json"),
        (lambda f, _: (f / "adapter_config.json").write_text("{"), "adapter_config.json cannot be read"),
        (lambda f, _: (f / "adapter_config.json").write_text("[]"), "adapter_config.json cannot be read"),
        (rename, "a pickle, which could run code: save it again"),
        (lambda f, _: (f / "adapter_model.safetensors").unlink(), "holds no adapter_model.safetensors"),
        (lambda f, _: (f / "adapter_model.safetensors").write_bytes(b"x" * 99), "safetensors is damaged"),
        (lambda f, _: change(f, task_type="CAUSAL_LM"), "was trained for CAUSAL_LM"),
        (lambda f, _: change(f, peft_type="P_TUNING"), "is P_TUNING: virtual tokens are no part"),
        (lambda f, _: change(f, peft_type="NEW"), "is NEW, which cannot be merged"),
        (lambda f, _: change(f, auto_map={"x": "y"}), "names code to run .auto_map."),
        (lambda f, _: change(f, megatron_config={"x": 1}), "names code to run .megatron_config."),
        (lambda f, _: change(f, prompt_type="P_TUNING"), "was saved by this project: name its run"),
        (lambda f, _: change(f, r=16), "does not fit .*size mismatch for .*lora_A"),
        (
            lambda f, _: change(f, target_modules=["query"]),
            "has what its config does not make there: .*value",
        ),
        (lambda f, _: change(f, target_modules=["query", "value", "key"]), "it lacks .*key.lora_A"),
        (lambda f, _: change(f, target_modules=["nowhere"]), "does not fit .*No modules were targeted"),
        (
            lambda f, _: weights(f, lambda t: {n: v for n, v in t.items() if "qa_outputs" not in n}),
            "it lacks .*qa_outputs",
        ),
        (
            lambda f, _: weights(f, lambda t: t | {"base_model.model.qa_outputs.weight": torch.ones(3, 32)}),
            "size mismatch for .*qa_outputs",
        ),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(copied, fault, message):
    folder, base = copied
    fault(folder, base)
    with pytest.raises(UserError, match=message) as error:
        models.load(base, adapter=str(folder))
    assert "\n" not in str(error.value)


def test_a_base_that_does_not_fit_is_named(copied, tiny, tmp_path):
    folder, _ = copied
    with pytest.raises(UserError, match="does not fit"):
        models.load(tiny("distilbert"), adapter=str(folder))
    with pytest.raises(UserError, match="there is no such folder"):
        models.load(str(tmp_path / "missing"), adapter=str(folder))
    change(folder, base_model_name_or_path=None)
    with pytest.raises(UserError, match="names no base: name one beside the adapter"):
        models.load(None, adapter=str(folder))
    with pytest.raises(UserError, match="No model is named"):
        models.load(None)


def test_a_head_that_neither_brings_is_named(copied, tmp_path):
    folder, base = copied
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(base).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "base")
    assert models.load(str(tmp_path / "base"), adapter=str(folder)).predict(ROWS) is not None
    change(folder, modules_to_save=None)
    weights(folder, lambda t: {n: v for n, v in t.items() if "qa_outputs" not in n})
    with pytest.raises(UserError, match="and the adapter's hold no trained head .qa_outputs"):
        models.load(str(tmp_path / "base"), adapter=str(folder))


def test_a_head_that_is_the_same_for_both_tasks_must_be_named(tiny, tmp_path):
    """ModernBERT's last module is `classifier` for answers too, and has two rows there."""
    targets = {"target_modules": ["Wqkv"], "modules_to_save": ["head", "classifier"]}
    theirs, tokenizer = stock(tmp_path, tiny("modernbert"), task_type=None, **targets)
    with pytest.raises(UserError, match=r"does not say what it was trained for \(task_type\)"):
        foreign.open_(None, tmp_path)
    change(tmp_path, task_type="QUESTION_ANS")
    found = foreign.open_(None, tmp_path)
    asked = inputs_of(tokenizer, ["input_ids", "attention_mask"])
    assert found.head == "QuestionAnswering" and found.task.data == "qa"
    with torch.no_grad():
        torch.testing.assert_close(
            found.model(**asked).start_logits, theirs(**asked).start_logits, atol=1e-4, rtol=1e-3
        )


def test_an_adapter_for_answers_fits_a_base_that_gave_several_labels(lora, tmp_path):
    folder, base = lora
    shutil.copytree(base, tmp_path / "base")
    file = tmp_path / "base" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"problem_type": "multi_label_classification"}))
    found = foreign.open_(str(tmp_path / "base"), folder)
    assert found.task.data == "qa" and found.head == "QuestionAnswering"


def test_an_adapter_of_this_project_is_one_of_pefts(tiny, tmp_path):
    from tests.support import trained

    bundle, base, *_ = trained.save(tmp_path, tiny, seed=5)
    found = models.load(str(base), adapter=str(bundle / "adapter")).predict(ROWS)
    base.rename(bundle / "base")
    expected = models.load(str(bundle)).predict(ROWS, null_threshold=1e9)
    assert list(found["answer"]) == list(expected["answer"])
