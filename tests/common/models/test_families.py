"""What the rows of FAMILIES say, and what transformers' configs say with them."""

import json
import re
import shutil

import pytest
import transformers
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
)

from common.errors import UserError
from common.models import base as models
from common.models.families import FAMILIES, family_of, saved_head, usable_positions, uses_segment_ids
from common.tasks.table import TASKS, head_of, refusal
from common.training.refusals import check_model
from common.training.settings import RunArgs
from tests.support.cells import CLASSIFICATION
from tests.support.techniques import TECHNIQUES

CONFIGS = {
    "bert": transformers.BertConfig,
    "xlm-roberta": transformers.XLMRobertaConfig,
    "albert": transformers.AlbertConfig,
    "mpnet": transformers.MPNetConfig,
    "longformer": transformers.LongformerConfig,
    "eurobert": transformers.EuroBertConfig,
    "bart": transformers.BartConfig,
    "mt5": transformers.MT5Config,
    "llama": transformers.LlamaConfig,
    "qwen2": transformers.Qwen2Config,
    "gemma": transformers.GemmaConfig,
    "roberta": transformers.RobertaConfig,
    "deberta-v2": transformers.DebertaV2Config,
    "modernbert": transformers.ModernBertConfig,
    "gpt2": transformers.GPT2Config,
    "t5": transformers.T5Config,
}


def test_an_unknown_family_is_refused_with_the_names_of_the_others():
    with pytest.raises(UserError, match="'gpt_neo' are not supported .*bert, camembert, deberta-v2"):
        family_of("gpt_neo")


def test_a_pattern_matches_just_the_roles_that_are_named():
    bert = FAMILIES["bert"]
    down, output = (f"bert.encoder.layer.0.{name}" for name in ("output.dense", "attention.output.dense"))
    assert re.fullmatch(bert.matching(bert.down), down)
    assert not re.fullmatch(bert.matching(bert.down), output)
    assert re.fullmatch(bert.matching(bert.down, bert.attention_output), output)


def test_layers_with_one_name_for_several_roles_are_listed_once():
    assert FAMILIES["gpt2"].linear_layers == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]


def test_training_the_head_alone_needs_a_head():
    gpt2 = FAMILIES["gpt2"]
    assert gpt2.refusal("head", "CausalLM") and gpt2.refusal("head", "QuestionAnswering") is None


@pytest.mark.parametrize(
    ("model_type", "positions"),
    [
        ("bert", 512),
        ("roberta", 512),
        ("deberta-v2", 512),
        ("modernbert", 8192),
        ("gpt2", 1024),
        ("t5", None),
        ("xlm-roberta", 512),
        ("albert", 512),
        ("mpnet", 512),
        ("longformer", 4096),
        ("eurobert", 8192),
        ("bart", 1024),
        ("mt5", None),
        ("llama", 2048),
        ("qwen2", 32768),
        ("gemma", 8192),
    ],
)
def test_positions_that_a_model_can_use(model_type, positions):
    # Two rows of RoBERTa's table, and of those like it, are not positions.
    rows = {"roberta": 514, "xlm-roberta": 514, "mpnet": 514, "longformer": 4098}.get(model_type)
    more = {"max_position_embeddings": rows} if rows else {}
    assert usable_positions(CONFIGS[model_type](**more)) == positions


def test_only_a_deberta_with_a_table_of_positions_is_limited_by_it():
    assert usable_positions(transformers.DebertaV2Config(position_biased_input=False)) is None


def test_segment_ids_need_a_family_and_a_config_that_have_them():
    assert uses_segment_ids(transformers.BertConfig())
    assert not uses_segment_ids(transformers.BertConfig(type_vocab_size=1))
    assert not uses_segment_ids(transformers.RobertaConfig(type_vocab_size=2))


@pytest.mark.parametrize(
    ("model_type", "name", "head"),
    [
        ("bert", "BertForQuestionAnswering", "QuestionAnswering"),
        ("modernbert", "ModernBertForSequenceClassification", "SequenceClassification"),
        ("gpt2", "GPT2ForQuestionAnswering", "QuestionAnswering"),
        ("gpt2", "GPT2LMHeadModel", "CausalLM"),
        ("t5", "T5ForConditionalGeneration", "Seq2SeqLM"),
        ("albert", "AlbertForSequenceClassification", "SequenceClassification"),
        ("bart", "BartForConditionalGeneration", "Seq2SeqLM"),
        ("llama", "LlamaForCausalLM", "CausalLM"),
    ],
)
def test_a_saved_models_class_names_its_head(model_type, name, head):
    assert saved_head(CONFIGS[model_type](architectures=[name])) == head


@pytest.mark.parametrize("architectures", [["BertForMaskedLM"], None])
def test_a_class_that_the_suite_does_not_train_is_refused(architectures):
    with pytest.raises(UserError, match=f"does not train .*{architectures and architectures[0]}"):
        saved_head(transformers.BertConfig(architectures=architectures))


@pytest.mark.parametrize(
    "family_name", [name for name, family in FAMILIES.items() if CLASSIFICATION in family.heads]
)
def test_what_no_encoder_is_pretrained_with_belongs_to_the_head(family_name, tiny):
    """A layer that stayed at its random start, frozen, would pass unnoticed."""
    spans = "QuestionAnswering" in FAMILIES[family_name].heads
    other = AutoModelForQuestionAnswering if spans else AutoModelForMaskedLM
    encoder = {name for name, _ in other.from_pretrained(tiny(family_name)).named_parameters()}
    model = AutoModelForSequenceClassification.from_pretrained(tiny(family_name))
    head = FAMILIES[family_name].heads[CLASSIFICATION]
    new = {name for name, _ in model.named_parameters()} - encoder
    assert all(name.startswith(head) for name in new)
    assert {model.get_submodule(name) for name in head} <= set(model.modules())


@pytest.mark.parametrize(
    ("family_name", "technique", "task"),
    [
        (family.model_type, technique, task.name)
        for family in FAMILIES.values()
        for technique in TECHNIQUES
        for task in TASKS.values()
        if head_of(task, family) and refusal(family, technique, task)
    ],
)
def test_what_a_family_cannot_do_is_refused_from_its_config(family_name, technique, task):
    family = FAMILIES[family_name]
    with pytest.raises(UserError, match=f"does not work with {family_name} for {task}"):
        check_model(TECHNIQUES[technique](), RunArgs(task=task, max_length=64), family, None)


def test_code_that_transformers_took_over_is_no_reason_to_refuse_a_checkpoint(tiny, tmp_path):
    """EuroBERT's checkpoints on the hub name the code that they were made with; transformers' own is used."""
    folder = shutil.copytree(tiny("eurobert"), tmp_path / "eurobert")
    config = json.loads((folder / "config.json").read_text())
    owner = "EuroBERT/EuroBERT-210m--"
    for prefix, refused in ((owner, False), ("", False), ("other_", True)):
        auto_map = {
            "AutoConfig": f"{owner}configuration_eurobert.EuroBertConfig",
            "AutoModel": f"{prefix}modeling_eurobert.EuroBertModel",
        }
        (folder / "config.json").write_text(json.dumps(config | {"auto_map": auto_map}))
        checkpoint = models.resolve_checkpoint(str(folder))
        if refused:
            with pytest.raises(UserError, match="config.json names code of its own"):
                models.load_base(checkpoint, CLASSIFICATION)
        else:
            model, _ = models.load_base(checkpoint, CLASSIFICATION)
            assert type(model) is transformers.EuroBertForSequenceClassification


def test_encoders_do_not_write(tiny):
    config = models.load_config(models.resolve_checkpoint(tiny("bert")))
    with pytest.raises(
        UserError,
        match="bert for generative-qa: the family is offered for extractive-qa and classification and "
        "multi-label-classification only",
    ):
        check_model(
            TECHNIQUES["lora"](), RunArgs(task="generative-qa", max_length=64), FAMILIES["bert"], config
        )


def test_position_table_limits_are_known(tiny):
    rooms = {"bert": 128, "roberta": 128, "deberta-v2": None, "mpnet": 128, "longformer": 128, "bart": 128}
    for family_name, room in rooms.items():
        config = models.load_config(models.resolve_checkpoint(tiny(family_name)))
        args = RunArgs(max_length=129)
        if room is None:
            check_model(TECHNIQUES["lora"](), args, FAMILIES[family_name], config)
        else:
            with pytest.raises(UserError, match=f"--max_length {room} or less"):
                check_model(TECHNIQUES["lora"](), args, FAMILIES[family_name], config)
