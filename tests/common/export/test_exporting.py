"""A stored model as a folder: every technique that can be merged, each family and head; the others are refused unwritten."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from common.api import export
from common.errors import UserError
from common.export import checking, formats, writing
from common.models.bundles import load_bundle, merges
from common.models.families import FAMILIES, auto_class
from common.tasks.table import task_of
from tests.support import stores
from tests.support.cells import CLASSIFICATION, CONFIGS, QA
from tests.support.exported import opened_here as opened_here
from tests.support.exported import saved
from tests.support.techniques import DECLARED, EVERY

APART = ("prefix-tuning", "prompt-encoder", "prompt-tuning", "bottleneck")
"""Techniques whose weights stand beside those of the base."""
MERGING = [name for name in EVERY if not name.startswith(APART) and name != "lora, eva"]
CELLS = [
    *[("lora", family, QA) for family in FAMILIES if QA in FAMILIES[family].heads],
    ("lora", "bert", CLASSIFICATION),
    ("standard", "distilbert", CLASSIFICATION),
    *[("lora", family, "Seq2SeqLM") for family in ("t5", "bart")],
    *[("lora", family, "CausalLM") for family in ("gpt2", "llama", "qwen2")],
]


@pytest.mark.parametrize(
    ("name", "family", "head"), [*[(name, "bert", QA) for name in MERGING], *CELLS], ids=str
)
def test_what_was_trained_is_in_the_weights(name, family, head, tiny, tmp_path, opened_here):
    bundle = saved(tmp_path, tiny, name, family, head)
    done = export(bundle, tmp_path / "out")
    assert "the same logits for 3 texts" in done.lines[1]
    # As anybody opens it.
    model = auto_class(head).from_pretrained(tmp_path / "out").eval()
    rows = checking.rows_of(checking.Stored("", bundle, load_bundle(bundle)[2]))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    found = model(**{k: v for k, v in _asked(tokenizer, rows[0], head, model).items()})
    own, its_tokenizer, _ = load_bundle(bundle)
    expected = own(**_asked(its_tokenizer, rows[0], head, own))
    for output in ("start_logits", "end_logits") if head == QA else ("logits",):
        torch.testing.assert_close(found[output], expected[output], atol=1e-4, rtol=0)


def _asked(tokenizer, row, head, model):
    inputs = dict(tokenizer(*row, truncation="only_second" if len(row) == 2 else True, max_length=96, return_tensors="pt"))  # fmt: skip
    if head == "Seq2SeqLM":
        inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
    return inputs


def test_the_tokenizer_knows_what_its_model_takes(tiny, tmp_path, opened_here):
    export(saved(tmp_path / "qa", tiny), tmp_path / "out")
    found = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (found.model_max_length, found.padding_side) == (96, "right")
    assert "token_type_ids" in found("a", "b")
    export(saved(tmp_path / "llama", tiny, "lora", "llama", "CausalLM"), tmp_path / "writes")
    found = AutoTokenizer.from_pretrained(tmp_path / "writes")
    assert found.padding_side == "left" and found.pad_token_id is not None


def test_the_tokenizer_has_names_that_transformers_4_knows(tiny, tmp_path, opened_here):
    """optimum needs it. What 5 calls otherwise reads the same there."""
    bundle = saved(tmp_path, tiny)
    tokenizer = AutoTokenizer.from_pretrained(bundle / "base")
    own = tokenizer.convert_ids_to_tokens([7, 8])
    tokenizer.add_special_tokens({"extra_special_tokens": own})
    tokenizer.save_pretrained(bundle / "base")
    assert "TokenizersBackend" in (bundle / "base" / "tokenizer_config.json").read_text()
    export(bundle, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert content["tokenizer_class"] == "PreTrainedTokenizerFast" and "extra_special_tokens" not in content
    assert content["additional_special_tokens"] == own
    assert AutoTokenizer.from_pretrained(tmp_path / "out").extra_special_tokens == own


def test_a_base_of_one_segment_gets_no_segment_ids(tiny, tmp_path, opened_here, monkeypatch):
    """As the packaged base, whose second segment nothing has trained."""
    from common.models import base

    whole = base.resolve_checkpoint(tiny("bert"))
    one = base.Checkpoint("embedded", whole.source, one_segment=True)
    monkeypatch.setattr(base, "resolve_checkpoint", lambda name: one)
    export(saved(tmp_path, tiny), tmp_path / "out")
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tmp_path / "out")("a", "b")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["type_vocab_size"] == 1


def test_labels_keep_their_names(tiny, tmp_path, opened_here):
    export(saved(tmp_path, tiny, head=CLASSIFICATION), tmp_path / "out")
    model = auto_class(CLASSIFICATION).from_pretrained(tmp_path / "out")
    assert model.config.id2label == CONFIGS[CLASSIFICATION]["id2label"]


def test_no_path_of_this_machine_leaves_it(tiny, tmp_path, opened_here):
    export(saved(tmp_path, tiny), tmp_path / "out")
    texts = [file.read_text() for file in (tmp_path / "out").iterdir() if file.suffix in (".json", ".md")]
    assert len(texts) > 2 and not [text for text in texts if str(tmp_path) in text or tiny("bert") in text]


@pytest.mark.parametrize("name", APART)
def test_what_cannot_be_merged_is_refused_with_the_reason_and_what_to_do(name, tiny, tmp_path):
    kind = "added layers" if name == "bottleneck" else "virtual tokens"
    with pytest.raises(UserError, match=f"{kind}.*mlflow models serve"):
        export(saved(tmp_path, tiny, name), tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_the_table_of_formats_says_what_saved_models_do(tiny, tmp_path):
    """It is written without them: what it says of merging is what each saved model does."""
    task, found = task_of("extractive-qa"), {}
    for name in DECLARED:
        bundle = saved(tmp_path / name, tiny, name)
        found[name] = merges(bundle)
        assert (formats.refusal("merged", formats.kind_of_saved(bundle), task) is None) == found[name], name
    assert {name for name in found if not found[name]} == set(APART)


def test_what_does_not_merge_is_refused_although_no_table_has_it(tiny, tmp_path, monkeypatch):
    bundle = saved(tmp_path, tiny)
    monkeypatch.setattr(formats, "merges", lambda folder: False)
    with pytest.raises(UserError, match="cannot be merged into the weights. Use --format adapter or"):
        export(bundle, tmp_path / "out")


def test_what_has_no_network_is_refused_before_any_work(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(writing.WRITERS, "onnx", lambda stored, folder: pytest.fail("it works"))
    long, short = saved(tmp_path / "long", tiny, "lora", "longformer"), saved(tmp_path, tiny)
    with pytest.raises(UserError, match="longformer cannot.*see the whole input.*Use --format merged or"):
        export(long, tmp_path / "out", "onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-onnx\.txt"):
        export(short, tmp_path / "out", "onnx")


def wider(bundle):
    """Give a saved adapter weights that do not fit its base."""
    file = bundle / "adapter" / "adapter_model.safetensors"
    save_file({name: torch.cat([each, each]) for name, each in load_file(file).items()}, file)


@pytest.mark.parametrize("format", ["merged", "adapter"])
def test_a_damaged_model_is_called_so_and_nothing_is_left(format, tiny, tmp_path, opened_here):
    whole = saved(tmp_path, tiny)
    info = json.loads((whole / "bundle.json").read_text())
    damages = {
        "no weights": lambda bundle: (bundle / "base" / "model.safetensors").unlink(),
        "cut weights": lambda bundle: (bundle / "base" / "model.safetensors").write_bytes(b"{}"),
        "empty base": lambda bundle: [file.unlink() for file in (bundle / "base").iterdir()],
        "half an adapter": lambda bundle: (bundle / "adapter" / "adapter_model.safetensors").write_bytes(
            b"{}"
        ),
        "an adapter of another size": wider,
        "no config of the adapter": lambda bundle: (bundle / "adapter" / "adapter_config.json").write_text(
            "{}"
        ),
        "no JSON": lambda bundle: (bundle / "bundle.json").write_text("{"),
        "a list": lambda bundle: (bundle / "bundle.json").write_text("[]"),
        "no task": lambda bundle: (bundle / "bundle.json").write_text(
            json.dumps({name: value for name, value in info.items() if name != "task"})
        ),
    }
    for name, damage in damages.items():
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        damage(shutil.copytree(whole, tmp_path / "damaged"))
        with pytest.raises(
            UserError, match=r"damaged cannot be opened \(.*copy it from the store"
        ) as refused:
            export(tmp_path / "damaged", tmp_path / "new" / "parents" / "out", format)
        assert "\n" not in str(refused.value) and "--to" not in str(refused.value), name
        assert sorted(file.name for file in tmp_path.iterdir()) == ["bundle", "damaged"], name


def test_a_folder_that_cannot_be_made_is_named(tiny, tmp_path):
    bundle = saved(tmp_path, tiny)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="--to .*file/out cannot be written: "):
        export(bundle, tmp_path / "file" / "out")


@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_with_other_logits_is_not_kept(empty, tiny, tmp_path, opened_here, monkeypatch):
    bundle, target = saved(tmp_path, tiny), tmp_path / "out"
    if empty:
        target.mkdir()

    def worse(stored, folder):
        written = was(stored, folder)
        model = auto_class(QA).from_pretrained(folder)
        with torch.no_grad():
            model.qa_outputs.bias += 0.01
        model.save_pretrained(folder)
        return written

    was = writing.merged
    monkeypatch.setitem(writing.WRITERS, "merged", worse)
    with pytest.raises(UserError, match=r"other logits \(up to 0.01 apart\)"):
        export(bundle, target)
    assert {file.name for file in tmp_path.iterdir()} == {"bundle", *["out"] * empty}


def test_a_folder_whose_tokenizer_reads_otherwise_is_not_kept(tiny, tmp_path, opened_here, monkeypatch):
    bundle = saved(tmp_path, tiny)

    def shorter(tokenizer, info):
        tokenizer.model_max_length = 48
        return tokenizer

    monkeypatch.setattr(writing, "for_others", shorter)
    with pytest.raises(UserError, match="other tokens"):
        export(bundle, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_only_a_new_or_empty_folder_is_written(tiny, tmp_path, opened_here):
    bundle = saved(tmp_path, tiny)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, message in (("full", "is not empty"), ("file", "is no folder")):
        with pytest.raises(UserError, match=message):
            export(bundle, tmp_path / name)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert export(bundle, tmp_path / "empty").folder == tmp_path / "empty"
    assert (tmp_path / "empty" / "model.safetensors").is_file()
    assert (export(bundle, tmp_path / "a" / "b").folder / "config.json").is_file()


def test_what_is_no_model_is_refused(tiny, tmp_path):
    bundle = saved(tmp_path, tiny)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "several" / "adapters").mkdir(parents=True)
    for model, message in (
        (tmp_path / "nothing", "holds no model of this project"),
        (tmp_path / "several", "several techniques"),
        ("gone", "there is no such folder"),
    ):
        with pytest.raises(UserError, match=message):
            export(model, tmp_path / "out")
    with pytest.raises(UserError, match="--format is 'gguf': choose one of merged"):
        export(bundle, tmp_path / "out", "gguf")
    info = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(info | {"runtime": "onnx-int8"}))
    with pytest.raises(UserError, match="exported_from"):
        export(bundle, tmp_path / "out")
    (bundle / "bundle.json").write_text(json.dumps(info))
    shutil.rmtree(bundle / "base")
    with pytest.raises(UserError, match="holds no base"):
        export(bundle, tmp_path / "out")
    for uri, message in (
        (f"runs:/{'0' * 32}/base", "without its base, which the store does not give"),
        ("file:///elsewhere", "refers to no base of a store"),
    ):
        (bundle / "base.json").write_text(json.dumps({"uri": uri, "fingerprint": "0" * 64}))
        with stores.in_force(tmp_path), pytest.raises(UserError, match=message):
            export(bundle, tmp_path / "out")
    (bundle / "base.json").write_text(json.dumps({"uri": f"runs:/{'0' * 32}/base", "fingerprint": "0" * 64}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'elsewhere.db'}")
        with pytest.raises(UserError, match="there is no store sqlite:.*elsewhere.db"):
            export(bundle, tmp_path / "out")
    assert not (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "out").exists()
