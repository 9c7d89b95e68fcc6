"""Models that others saved with transformers: answered by the same windows and decoding, with the head that they have."""

import shutil

import huggingface_hub
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from common.errors import UserError
from common.inference import foreign, models
from common.models.bundles import read_bundle
from common.models.families import FAMILIES, uses_segment_ids
from common.tasks.batching import Collator
from common.tasks.extractive_qa.prediction import decode_spans, predict_spans
from common.tasks.extractive_qa.windows import make_windows
from tests.support.foreign import UNTRAINED_HERE, untrained_here
from tests.support.questions import EXAMPLES

ROWS = [{name: example[name] for name in ("question", "context")} for example in EXAMPLES]


@pytest.fixture(scope="module")
def decided(tiny, tmp_path_factory):
    """A folder as save_pretrained writes it, with a question-answering head that is no random draw near zero."""
    folder = tmp_path_factory.mktemp("foreign")
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tiny("distilbert"))
    torch.manual_seed(3)
    with torch.no_grad():
        model.qa_outputs.weight.normal_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny("distilbert")).save_pretrained(folder)
    return folder


def test_it_answers_as_its_weights_do_by_our_windows(decided):
    found = models.load(str(decided)).predict(ROWS)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(decided).eval()
    tokenizer = AutoTokenizer.from_pretrained(decided)
    windows = make_windows(
        tokenizer, EXAMPLES, max_length=128, doc_stride=32, segment_ids=uses_segment_ids(model.config)
    )
    spans = predict_spans(model, windows, Collator(tokenizer.pad_token_id), n_best=20, max_answer_length=30)
    expected = decode_spans(spans, windows, EXAMPLES, n_best=20, null_threshold=None)
    assert list(found["answer"]) == [each.text for each in expected]
    assert found["score"].to_numpy() == pytest.approx([each.probability for each in expected], abs=1e-6)
    assert len(set(found["answer"])) > 3


def test_it_may_give_no_answer_where_it_is_asked_to(decided):
    model = models.load(str(decided))
    assert model.origin.always_answers and all(model.predict(ROWS)["answer"])
    assert not any(model.predict(ROWS, null_threshold=-1000.0)["answer"])


def test_a_model_of_the_hub_is_taken_from_the_cache_at_its_commit(decided, tmp_path, monkeypatch):
    commit = "c" * 40
    place = tmp_path / "models--someone--qa"
    shutil.copytree(decided, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(transformers.utils.hub, "TRANSFORMERS_CACHE", str(tmp_path), raising=False)
    model = models.load("someone/qa")
    assert f"commit {commit}" in model.origin.content
    assert list(model.predict(ROWS)["answer"]) == list(models.load(str(decided)).predict(ROWS)["answer"])


def save_classifier(tiny, folder, **config):
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(tiny("bert"), **config)
    with torch.no_grad():
        model.classifier.weight.normal_()
        model.bert.pooler.dense.weight.normal_()
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return model.eval(), tokenizer


@pytest.mark.parametrize("config", [{"num_labels": 1}, {"num_labels": 3, "problem_type": "regression"}])
def test_a_head_that_gives_numbers_is_no_classifier(config, tiny, tmp_path):
    save_classifier(tiny, tmp_path, **config)
    with pytest.raises(UserError, match="gives a number .regression., and no label"):
        models.load(str(tmp_path))


def test_pairs_are_read_as_the_models_own_tokenizer_joins_them(tiny, tmp_path):
    model, tokenizer = save_classifier(tiny, tmp_path, num_labels=3)
    assert models.load(str(tmp_path)).asked == ("text",)
    found = models.load(str(tmp_path), pairs=True)
    assert found.asked == ("text", "text_pair")
    pairs = [(e["context"], e["question"]) for e in EXAMPLES]
    # The tiny tokenizer gives segments only where it is asked for them, BERT's own always.
    how = {"padding": True, "return_tensors": "pt", "return_token_type_ids": True}
    rows = tokenizer([a for a, _ in pairs], [b for _, b in pairs], **how)
    assert rows["token_type_ids"].any()
    with torch.no_grad():
        logits = model(**rows).logits
    given = found.predict([{"text": a, "text_pair": b} for a, b in pairs])
    assert given["score"].to_numpy() == pytest.approx(logits.softmax(1).max(1).values.numpy(), abs=1e-5)


def test_a_classifier_keeps_its_labels(tiny, tmp_path):
    names = ["joy", "anger", "fear"]
    config = {
        "num_labels": 3,
        "id2label": dict(enumerate(names)),
        "label2id": {n: i for i, n in enumerate(names)},
    }
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(tiny("roberta"), **config)
    with torch.no_grad():
        model.classifier.out_proj.weight.normal_()
    tokenizer = AutoTokenizer.from_pretrained(tiny("roberta"))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    found = models.load(str(tmp_path)).predict([{"text": e["context"]} for e in EXAMPLES], top_k=3)
    rows = tokenizer([e["context"] for e in EXAMPLES], padding=True, return_tensors="pt")
    rows.pop("token_type_ids", None)
    with torch.no_grad():
        logits = model.eval()(**rows).logits
    assert list(found["label"]) == [names[i] for i in logits.argmax(1)]
    assert found["score"].to_numpy() == pytest.approx(logits.softmax(1).max(1).values.numpy(), abs=1e-5)
    assert {each["label"] for each in found["alternatives"][0]} | {found["label"][0]} == set(names)


def test_a_model_without_a_trained_head_is_refused(tiny, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    bare = transformers.AutoModel.from_pretrained(tiny("bert"))
    for part in (bare, tokenizer):
        part.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a BertModel: it has no head that answers questions"):
        models.load(str(tmp_path))
    # Its config promises one that its weights do not hold.
    bare.config.architectures = ["BertForQuestionAnswering"]
    bare.config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"hold no trained head \(qa_outputs.bias\)"):
        models.load(str(tmp_path))


def test_code_of_its_own_is_refused(decided, tmp_path):
    shutil.copytree(decided, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("{", '{"auto_map": {"AutoModel": "evil.Model"},', 1))
    with pytest.raises(UserError, match="names code of its own"):
        models.load(str(tmp_path))


def test_a_writer_is_refused(tiny):
    with pytest.raises(UserError, match="is a GPT2LMHeadModel: it has no head"):
        foreign.save(tiny("gpt2"), None)


@pytest.mark.parametrize("model_type", [name for name in UNTRAINED_HERE if name != "fnet"])
def test_a_model_of_any_family_answers(model_type, tmp_path):
    assert model_type not in FAMILIES
    model, tokenizer = untrained_here(tmp_path, model_type)
    found = models.load(str(tmp_path)).predict(ROWS)
    longest = UNTRAINED_HERE[model_type][2]
    segment_ids = "token_type_ids" in tokenizer.model_input_names and model_type != "roberta-prelayernorm"
    windows = make_windows(
        tokenizer, EXAMPLES, max_length=longest, doc_stride=min(128, longest // 4), segment_ids=segment_ids
    )
    spans = predict_spans(model, windows, Collator(tokenizer.pad_token_id), n_best=20, max_answer_length=30)
    expected = decode_spans(spans, windows, EXAMPLES, n_best=20, null_threshold=None)
    assert list(found["answer"]) == [each.text for each in expected]
    assert found["score"].to_numpy() == pytest.approx([each.probability for each in expected], abs=1e-5)
    assert len(set(found["answer"])) > 2


def test_the_tokenizer_may_state_a_shorter_window(tmp_path):
    _, tokenizer = untrained_here(tmp_path, "big_bird")
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path)
    foreign.save(str(tmp_path), tmp_path / "saved")
    settings = read_bundle(tmp_path / "saved").settings
    assert settings["max_length"] == 64 and settings["doc_stride"] == 16


@pytest.mark.parametrize("model_type", ["squeezebert", "big_bird"])
def test_a_classifier_of_any_family_keeps_its_labels(model_type, tmp_path):
    names = {0: "joy", 1: "anger", 2: "fear"}
    model, tokenizer = untrained_here(tmp_path, model_type, "SequenceClassification", id2label=names)
    found = models.load(str(tmp_path)).predict([{"text": e["context"]} for e in EXAMPLES])
    rows = tokenizer([e["context"] for e in EXAMPLES], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**rows).logits
    assert list(found["label"]) == [names[i] for i in logits.argmax(1).tolist()]
    assert found["score"].to_numpy() == pytest.approx(logits.softmax(1).max(1).values.numpy(), abs=1e-5)


def test_a_decoder_that_is_not_trained_for_labels_here_gives_them(tiny, tmp_path):
    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(tiny("gpt2"), num_labels=3)
    with torch.no_grad():
        model.score.weight.normal_()
    tokenizer = AutoTokenizer.from_pretrained(tiny("gpt2"))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    found = models.load(str(tmp_path)).predict([{"text": e["context"]} for e in EXAMPLES])
    with torch.no_grad():
        alone = [model.eval()(**tokenizer(e["context"], return_tensors="pt")).logits[0] for e in EXAMPLES]
    assert list(found["label"]) == [f"LABEL_{int(logits.argmax())}" for logits in alone]


def test_a_model_that_reads_padding_is_refused(tmp_path):
    """XLNet's classifier reads the last token, which its own tokenizer puts in front of no padding."""
    untrained_here(tmp_path, "xlnet", "SequenceClassification", num_labels=3)
    with pytest.raises(UserError, match="XLNetForSequenceClassification, whose answers depend on how far"):
        models.load(str(tmp_path))


def test_a_model_without_an_attention_mask_is_refused(tmp_path):
    untrained_here(tmp_path, "fnet")
    with pytest.raises(UserError, match="FNetForQuestionAnswering, which takes no attention mask"):
        models.load(str(tmp_path))


def test_a_number_is_no_label(tmp_path):
    untrained_here(tmp_path, "big_bird", "SequenceClassification", num_labels=1)
    with pytest.raises(UserError, match="gives a number .regression., and no label"):
        models.load(str(tmp_path))


def test_a_model_of_any_family_without_a_trained_head_is_refused(tmp_path):
    model, _ = untrained_here(tmp_path, "big_bird")
    model.bert.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    config.architectures = ["BigBirdForQuestionAnswering"]
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="lack .* of the model's tensors, for example qa_classifier"):
        models.load(str(tmp_path))
