"""What is read from a checkpoint: its weights whole, a head that fits, a tokenizer; and the packaged model."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
)

from common.errors import UserError
from common.models import base as models
from common.models import bundles, saving
from common.models.families import FAMILIES, family_of, uses_segment_ids
from tests.support.cells import CLASSIFICATION, CONFIGS, QA, batch_of, train, usual_head
from tests.support.questions import EXAMPLES


def test_a_checkpoint_with_other_labels_gets_a_new_head(tiny, tmp_path):
    other = AutoModelForSequenceClassification.from_pretrained(tiny("bert"), num_labels=5)
    other.save_pretrained(tmp_path)
    models.load_base(models.resolve_checkpoint(tiny("bert")))[1].save_pretrained(tmp_path)
    model, _ = models.load_base(
        models.resolve_checkpoint(str(tmp_path)), CLASSIFICATION, **CONFIGS[CLASSIFICATION]
    )
    assert model.classifier.out_features == model.config.num_labels == 2
    assert torch.equal(model.bert.pooler.dense.weight, other.bert.pooler.dense.weight)


@pytest.mark.parametrize("family_name", ["bert", "distilbert", "modernbert", "t5"])
def test_answers_get_a_new_head_where_the_checkpoint_has_three_labels(family_name, tiny, tmp_path, capsys):
    auto = AutoModelForQuestionAnswering
    config = models.load_config(models.resolve_checkpoint(tiny(family_name)))
    if family_name == "distilbert":
        auto = AutoModelForSequenceClassification
    config.num_labels = 3
    other = auto.from_config(config)
    other.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny(family_name)).save_pretrained(tmp_path)
    checkpoint = models.resolve_checkpoint(str(tmp_path))
    for _ in range(2):
        model, tokenizer = models.load_base(checkpoint)
    assert model.config.num_labels == 2
    batch = batch_of(tokenizer, model.config)
    train(model, batch, 2, 1e-3)
    kept = {n: t for n, t in other.state_dict().items() if not n.startswith(FAMILIES[family_name].heads[QA])}
    fresh = models.load_base(checkpoint)[0].state_dict()
    assert all(fresh[name].equal(tensor) for name, tensor in kept.items() if name in fresh)
    said = capsys.readouterr().err
    # DistilBERT's classifier is a head of another name.
    assert said.count("its head starts from scratch") == (0 if family_name == "distilbert" else 1)
    saving.save_base(checkpoint, tmp_path / "base")
    assert AutoModelForQuestionAnswering.from_pretrained(tmp_path / "base").config.num_labels == 2


@pytest.mark.parametrize("head", list(CONFIGS))
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_hidden_layers", 3, "lack 16 of the model's tensors, for example bert.encoder.layer.2"),
        ("intermediate_size", 96, r"is \(64,\) in its weights and \(96,\) in its config.json"),
        (
            "vocab_size",
            230,
            r"word_embeddings.weight is \(\d+, 32\) in its weights and \(230, 32\) in its config",
        ),
    ],
)
def test_weights_that_do_not_belong_to_their_config_are_refused(head, field, value, message, tiny, tmp_path):
    """transformers draws tensors at random that are missing or have another size; only a head's may be."""
    folder = shutil.copytree(tiny("bert"), tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text()) | {field: value}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message) as refused:
        models.load_base(models.resolve_checkpoint(str(folder)), head, **CONFIGS[head])
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)


def test_weights_that_are_cut_short_are_one_line(tiny, tmp_path):
    folder = shutil.copytree(tiny("bert"), tmp_path / "bert")
    whole = (folder / "model.safetensors").read_bytes()
    for size in (len(whole) // 2, 20, 0):
        (folder / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(UserError, match="--model_checkpoint") as refused:
            models.load_base(models.resolve_checkpoint(str(folder)))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("family_name", "rules"),
    [
        # As BART's config.json and Qwen's generation_config.json have them.
        (
            "bart",
            {"num_beams": 4, "no_repeat_ngram_size": 3, "forced_bos_token_id": 0, "early_stopping": True},
        ),
        ("qwen2", {"repetition_penalty": 1.5, "do_sample": True, "temperature": 0.7, "top_k": 20}),
    ],
)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_a_checkpoints_rules_of_writing_are_left_out(file, family_name, rules, tiny, tmp_path):
    folder = shutil.copytree(tiny(family_name), tmp_path / family_name)
    content = json.loads((folder / file).read_text()) | rules
    (folder / file).write_text(json.dumps(content))
    if file == "config.json":
        (folder / "generation_config.json").unlink()
    head = usual_head(family_name)
    model, tokenizer = models.load_base(models.resolve_checkpoint(str(folder)), head)
    saving.save_base(models.resolve_checkpoint(str(folder)), tmp_path / "base", head)
    info = bundles.BundleInfo("", family_name, "", "", "", head, {})
    for loaded in (model, bundles.load_shared_base(tmp_path / "base", info).model):
        kept = loaded.generation_config.to_diff_dict()
        assert not kept.keys() & rules.keys()
        assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    plain, _ = models.load_base(models.resolve_checkpoint(tiny(family_name)), head)
    inputs = tokenizer("Who shared the prize?", return_tensors="pt")
    written = [
        network.eval().generate(**inputs, max_new_tokens=8, do_sample=False) for network in (model, plain)
    ]
    assert torch.equal(*written)


def test_the_tokenizer_of_a_distilbert_emits_no_segment_ids(tiny):
    """Some DistilBERT checkpoints ship BERT's tokenizer, whose segment ids their forward refuses."""
    model, tokenizer = models.load_base(models.resolve_checkpoint(tiny("distilbert")))
    model(**tokenizer("Who?", "Marie Curie", return_tensors="pt"))


def test_the_saved_base_does_not_depend_on_the_seed(tiny, tmp_path):
    prints = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        prints.add(saving.save_base(models.resolve_checkpoint(tiny("electra")), tmp_path / str(seed)))
    assert len(prints) == 1


def test_unknown_checkpoints_are_refused_with_a_remedy(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        models.resolve_checkpoint("./nowhere")
    with pytest.raises(UserError, match="embedded"):
        models.resolve_checkpoint("someone/some-model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="config.json"):
        models.resolve_checkpoint(str(tmp_path / "empty"))
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neo"}')
    with pytest.raises(UserError, match="not supported"):
        family_of(models.load_config(models.resolve_checkpoint(str(tmp_path))).model_type)


def test_auto_says_loudly_what_it_became(capsys, monkeypatch):
    monkeypatch.setattr(models, "hub_answers", lambda: False)
    monkeypatch.setattr(models, "_in_cache", lambda name: False)
    assert models.resolve_checkpoint("auto").name == "embedded"
    assert "packaged MiniLM" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["embedded", "embedded-distilbert"])
def test_the_packaged_model_has_its_hidden_states_of_single_texts(name):
    checkpoint = models.resolve_checkpoint(name)
    model, tokenizer = models.load_base(checkpoint)
    packaged = BertModel.from_pretrained(checkpoint.source, add_pooling_layer=False).eval()
    theirs = AutoTokenizer.from_pretrained(checkpoint.source)
    texts = [e["question"] for e in EXAMPLES], [e["context"] for e in EXAMPLES]
    inputs = tokenizer(*texts, return_tensors="pt", padding=True)
    assert "token_type_ids" not in inputs and tokenizer.get_vocab() == theirs.get_vocab()
    with torch.no_grad():
        expected = packaged(**inputs).last_hidden_state
        got = model.base_model.eval()(**inputs).last_hidden_state
    kept = inputs["attention_mask"].bool()
    np.testing.assert_allclose(got[kept].numpy(), expected[kept].numpy(), atol=2e-5)


def test_of_the_packaged_models_segments_the_first_is_kept(tmp_path):
    checkpoint = models.resolve_checkpoint("embedded")
    model, tokenizer = models.load_base(checkpoint)
    assert models.load_config(checkpoint).type_vocab_size == model.config.type_vocab_size == 1
    assert model.bert.embeddings.token_type_embeddings.weight.requires_grad
    assert not uses_segment_ids(model.config)
    # The saved base is a BERT like any other, which transformers loads by itself.
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, its_tokenizer = models.load_base(models.resolve_checkpoint(str(tmp_path)))
    assert its_tokenizer.model_input_names == tokenizer.model_input_names
    inputs = AutoTokenizer.from_pretrained(tmp_path)("Who?", "Marie Curie", return_tensors="pt")
    AutoModelForQuestionAnswering.from_pretrained(tmp_path)(**inputs)
    state = model.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize("checkpoint", ["embedded", "embedded-distilbert"])
def test_the_packaged_model_classifies(checkpoint):
    model, tokenizer = models.load_base(
        models.resolve_checkpoint(checkpoint), CLASSIFICATION, **CONFIGS[CLASSIFICATION]
    )
    out = model(**tokenizer(["Good.", "Not so good."], return_tensors="pt", padding=True))
    assert out.logits.shape == (2, 2) and model.config.label2id == {"negative": 0, "positive": 1}


def test_a_damaged_packaged_model_is_refused(monkeypatch):
    monkeypatch.setattr(models, "PACKAGE_SHA256", "0" * 64)
    with pytest.raises(UserError, match="force-reinstall"):
        models.packaged_model()
