"""Adapters that stock PEFT opens with the same logits, on a base that others find."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer, GenerationConfig

from common.api import export
from common.errors import UserError
from common.export import checking
from common.models import peft_kinds
from common.models.bundles import load_bundle
from common.models.families import auto_class
from tests.support.cells import CLASSIFICATION, QA
from tests.support.exported import alone, saved
from tests.support.exported import of_hub as of_hub
from tests.support.exported import opened_here as opened_here
from tests.support.peft_types import CONFIGS as OF_TYPES
from tests.support.techniques import DECLARED, VARIANTS

WITHOUT = ("standard", "bitfit", "layer-norm", "top-layers", "head", "bottleneck", "boft")
VIRTUAL = ("prefix-tuning", "prompt-encoder", "prompt-tuning")
ADAPTERS = [name for name in DECLARED if name not in WITHOUT + VIRTUAL]
OTHERS = [name for name in VARIANTS if name.startswith("lora") and name != "lora, eva"]
CELLS = [
    *[(name, "bert", QA) for name in ADAPTERS + OTHERS],
    *[("lora", family, QA) for family in ("roberta", "distilbert", "gpt2", "t5", "modernbert")],
    ("lora", "bert", CLASSIFICATION),
    ("ia3", "bert", CLASSIFICATION),
    ("lora", "t5", "Seq2SeqLM"),
    ("lora", "llama", "CausalLM"),
]

STOCK = """
import sys
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

base = AutoModelForQuestionAnswering.from_pretrained(sys.argv[1] + "/base")
model = PeftModel.from_pretrained(base, sys.argv[1]).eval()
inputs = AutoTokenizer.from_pretrained(sys.argv[1])("What is it?", "The heart pumps blood.", return_tensors="pt")
with torch.no_grad():
    save_file({"start": model(**inputs).start_logits}, sys.argv[2])
"""


@pytest.mark.parametrize(("name", "family", "head"), CELLS, ids=str)
def test_stock_peft_gives_the_same_logits(name, family, head, tiny, tmp_path, opened_here):
    bundle = saved(tmp_path, tiny, name, family, head)
    done = export(bundle, tmp_path / "out", "adapter")
    assert "the same logits for 3 texts" in done.lines[1]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("./base", None)
    base = auto_class(head).from_pretrained(tmp_path / "out" / "base")
    model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    own, its_tokenizer, info = load_bundle(bundle)
    row = checking.rows_of(checking.Stored("", bundle, info))[0]
    inputs, expected = tokenizer(*row, return_tensors="pt"), its_tokenizer(*row, return_tensors="pt")
    extra = (
        {"decoder_input_ids": torch.tensor([[base.config.decoder_start_token_id]])}
        if head == "Seq2SeqLM"
        else {}
    )
    name = "start_logits" if head == QA else "logits"
    torch.testing.assert_close(
        model(**inputs, **extra)[name], own(**expected, **extra)[name], atol=1e-5, rtol=0
    )


@pytest.mark.long
@pytest.mark.parametrize("name", ["lora, all at once", "adalora"])
def test_a_process_that_has_only_the_libraries_opens_it(name, tiny, tmp_path):
    from safetensors.torch import load_file

    bundle = saved(tmp_path, tiny, name)
    done = export(bundle, tmp_path / "out", "adapter")
    assert "Opened in a process without this project" in done.lines[1]
    alone(STOCK, tmp_path, tmp_path / "out", tmp_path / "found.safetensors")
    model, tokenizer, _ = load_bundle(bundle)
    inputs = tokenizer("What is it?", "The heart pumps blood.", return_tensors="pt")
    found = load_file(tmp_path / "found.safetensors")["start"]
    torch.testing.assert_close(found, model(**inputs).start_logits, atol=1e-4, rtol=0)


@pytest.mark.long
def test_one_factor_of_boft_leaves_and_several_do_not(tiny, tmp_path):
    """In a process of its own: this one has PEFT's fault corrected."""
    export(saved(tmp_path / "1", tiny, "boft", butterfly_factors=1), tmp_path / "out", "adapter")
    with pytest.raises(UserError, match="several factors.*--format merged"):
        export(saved(tmp_path / "2", tiny, "boft"), tmp_path / "more", "adapter")


@pytest.mark.parametrize("name", [*WITHOUT, *VIRTUAL])
def test_what_is_no_adapter_of_pefts_is_refused(name, tiny, tmp_path):
    merged = "" if name in (*VIRTUAL, "bottleneck") else "--format merged or "
    why = "other logits" if name in VIRTUAL else "CUDA" if name == "boft" else "no such technique|no adapter"
    with pytest.raises(UserError, match=rf"({why}).*Use {merged}--format onnx or serve it with"):
        export(saved(tmp_path, tiny, name), tmp_path / "out", "adapter")
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.long
def test_each_type_of_peft_by_file_leaves_or_is_refused(tiny, tmp_path, opened_here):
    """None gives other logits: what PEFT opens otherwise than this project is refused by name."""
    refused = set()
    for kind in OF_TYPES:
        folder = tmp_path / kind
        bundle = saved(folder, tiny, f"peft {kind}")
        try:
            export(bundle, folder / "out", "adapter")
        except UserError as error:
            assert "cannot be exported like this" in str(error), (kind, str(error))
            refused.add(kind)
    assert set(peft_kinds.PROMPT_TYPES) <= refused <= {*peft_kinds.PROMPT_TYPES, "BOFT"}


def test_an_altered_adapter_is_not_kept(tiny, tmp_path, opened_here, monkeypatch):
    """As it would be if PEFT computed a method otherwise than this project."""
    bundle = saved(tmp_path, tiny, "lora")
    was = PeftModel.from_pretrained.__func__

    def other(cls, model, folder, **settings):
        found = was(cls, model, folder, **settings)
        if folder == str(tmp_path / ".out.part"):
            for name, parameter in found.named_parameters():
                if "lora_B" in name:
                    parameter.data *= 1.5
        return found

    monkeypatch.setattr(PeftModel, "from_pretrained", classmethod(other))
    with pytest.raises(UserError, match="gives other logits"):
        export(bundle, tmp_path / "out", "adapter")
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("head", [QA, CLASSIFICATION])
def test_a_base_of_the_hub_is_named_with_its_commit(head, of_hub, tiny, tmp_path, opened_here):
    name, commit = of_hub("bert")
    export(saved(tmp_path, tiny, head=head, checkpoint=name), tmp_path / "out", "adapter")
    assert not (tmp_path / "out" / "base").exists()
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (name, commit)


def test_a_base_that_the_hub_has_otherwise_lies_beside_the_adapter(of_hub, tiny, tmp_path, opened_here):
    """The branch has moved: the weights of its commit are others than the adapter's base."""
    name, commit = of_hub("bert")
    bundle = saved(tmp_path, tiny, checkpoint=name)
    snapshot = tmp_path / "hub" / "models--acme--tiny-bert" / "snapshots" / commit
    model = auto_class(QA).from_pretrained(snapshot)
    next(model.parameters()).data += 0.01
    model.save_pretrained(snapshot)
    export(bundle, tmp_path / "out", "adapter")
    assert (tmp_path / "out" / "base" / "model.safetensors").is_file()


def test_a_base_that_writes_lies_beside_its_adapter(of_hub, tiny, tmp_path, opened_here):
    """The hub's files have rules of writing (BART: four beams), which answers were scored without."""
    name, commit = of_hub("bart")
    file = (
        tmp_path
        / "hub"
        / f"models--{name.replace('/', '--')}"
        / "snapshots"
        / commit
        / "generation_config.json"
    )
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(content | {"num_beams": 4, "forced_bos_token_id": 5}))
    export(saved(tmp_path, tiny, "lora", "bart", "Seq2SeqLM", checkpoint=name), tmp_path / "out", "adapter")
    rules = GenerationConfig.from_pretrained(tmp_path / "out" / "base")
    assert (rules.num_beams or 1, rules.forced_bos_token_id) == (1, None)
