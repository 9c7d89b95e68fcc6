"""What a file may declare, what is refused by name, and that the lists of PEFT's types say what PEFT does."""

import json

import peft
import pytest
import torch
from peft.utils import PeftType

from common.errors import UserError
from common.models import base as models
from common.models import peft_kinds
from common.models.families import FAMILIES, auto_class
from common.models.methods import norms
from tests.support.cells import QA, refused, usual_head
from tests.support.peft_types import CONFIGS
from tests.support.techniques import BY_FILE, TECHNIQUES
from tests.support.techniques import technique as technique_of

PEFT = TECHNIQUES["peft"]


def file_of(folder, content, name="any.yaml"):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder / name)


def test_every_type_of_peft_is_in_one_list():
    assert len(set(peft_kinds.WORKING)) == len(peft_kinds.WORKING)
    assert {*peft_kinds.WORKING, *peft_kinds.REFUSED} == {kind.value for kind in PeftType}
    assert not set(peft_kinds.WORKING) & peft_kinds.REFUSED.keys()
    further = {
        *peft_kinds.LINEAR_ONLY,
        *peft_kinds.CANNOT_MERGE,
        *peft_kinds.BARRED,
    }
    assert further <= set(peft_kinds.WORKING)
    # The suite has prompt tuning of its own.
    assert peft_kinds.NEED_WEIGHTS <= {*peft_kinds.WORKING, "PROMPT_TUNING"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"peft_type": "MISS", "rr": 2}, "any.yaml: 'rr' is no field of MISS; did you mean r"),
        ({"peft_type": "MISS", "miss_drpout": 0.1}, "did you mean miss_dropout"),
        ({"peft_type": "MIS"}, "'MIS' is no peft_type that works here; did you mean MISS"),
        ({"r": 2}, "any.yaml needs a peft_type"),
        ({"peft_type": "MISS", "r": "eight"}, "r of MISS is 'eight'; it must be int"),
        ({"peft_type": "MISS", "r": True}, "r of MISS is True; it must be int"),
        ({"peft_type": "LORA", "bias": "al"}, r"bias of LORA is 'al'; it must be Literal\['none', 'all', 'lora_"),
        ({"peft_type": "LORA", "task_type": "SEQ_CLS"}, "task_type is not for a file to set: --task names the"),
        ({"peft_type": "LORA", "modules_to_save": ["x"]}, "modules_to_save .* head of the task is always trained"),
        ({"peft_type": "LORA", "inference_mode": True}, "inference_mode is not for a file to set: a run trains"),
        ({"peft_type": "LORA", "init_lora_weights": "pissa"}, "Choose true, false, gaussian or orthogonal"),
        ({"peft_type": "LORA", "alora_invocation_tokens": [1]}, "it is for decoders"),
        ({"peft_type": "ADALORA", "total_step": 9, "r": 4}, "r is not for a file to set: AdaLoRA reads init_r and target_r"),
        ({"peft_type": "ADALORA", "total_step": 9, "use_rslora": True}, "use_rslora .* AdaLoRA does not read it"),
        ({"peft_type": "ADALORA", "total_step": 9, "eva_config": {"rho": 2.0}}, "eva_config is not for a file to set"),
        ({"peft_type": "ADALORA", "total_step": 9, "init_r": 8}, "target_r 8 leaves AdaLoRA nothing .* init_r 8"),
        ({"peft_type": "ADALORA", "total_step": 9, "deltaT": 0}, "deltaT is 0; it must be 1 or more"),
        ({"peft_type": "TRAINABLE_TOKENS"}, "TRAINABLE_TOKENS needs token_indices"),
        ({"peft_type": "TRAINABLE_TOKENS", "token_indices": [3, -1]}, "token_indices holds a number below 0"),
        ({"peft_type": "LORA", "trainable_token_indices": {"wte": [-1]}}, "trainable_token_indices holds a number"),
        ({"peft_type": "P_TUNING"}, "P_TUNING needs num_virtual_tokens"),
        ({"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "TEXT"}, "choose RANDOM or SAMPLE_VOCAB"),
        ({"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"a": 1}}, "tokenizer_kwargs is not for a file to set"),
        ("- a\n- b", "must hold 'name: value' lines"),
        ("a: [", "is neither YAML nor JSON"),
    ],
)  # fmt: skip
def test_a_faulty_file_is_refused_by_name(content, message, tmp_path):
    with pytest.raises(UserError, match=message) as found:
        PEFT(peft_config=file_of(tmp_path, content))
    assert "\n" not in str(found.value) and "any.yaml" in str(found.value)


@pytest.mark.parametrize("kind", sorted(peft_kinds.REFUSED))
def test_types_that_cannot_work_are_refused_with_the_reason(kind, tmp_path):
    with pytest.raises(UserError, match=f"{kind} cannot be trained here: ") as found:
        PEFT(peft_config=file_of(tmp_path, {"peft_type": kind}))
    assert peft_kinds.REFUSED[kind] in str(found.value)


def test_a_missing_file_and_a_missing_flag_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none.yaml: No such file"):
        PEFT(peft_config=str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match="--peft_config is missing"):
        PEFT().method(FAMILIES["bert"])


def test_the_content_counts_and_not_the_path(tmp_path):
    yaml = PEFT(peft_config=file_of(tmp_path, "r: 4\npeft_type: miss\nmiss_dropout: 1e-1\n"))
    as_json = PEFT(
        peft_config=file_of(tmp_path, {"peft_type": "MISS", "miss_dropout": 0.1, "r": 4}, "b.json")
    )
    assert yaml == as_json and yaml.name == "PEFT MISS"
    assert json.loads(yaml.peft_config) == {"peft_type": "MISS", "r": 4, "miss_dropout": 0.1}
    assert PEFT(peft_config=yaml.peft_config) == yaml
    assert PEFT(peft_config=file_of(tmp_path, {"peft_type": "MISS", "r": 8})) != yaml


def test_what_peft_itself_writes_is_taken_apart_from_what_the_suite_sets(tmp_path):
    """Fields at their defaults say nothing, those of a base and a task are refused."""
    peft.HRAConfig(r=4, target_modules=["query"]).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "adapter_config.json").read_text())
    with pytest.raises(UserError, match="peft_version is not for a file to set"):
        PEFT(peft_config=file_of(tmp_path, content))
    del content["peft_version"]
    assert json.loads(PEFT(peft_config=file_of(tmp_path, content)).peft_config) == {
        "peft_type": "HRA",
        "r": 4,
        "target_modules": ["query"],
    }


def test_without_targets_every_linear_layer_of_a_block_is_one():
    family = FAMILIES["bert"]
    found = PEFT(peft_config='{"peft_type": "MISS"}').method(family)
    assert found.target_modules == set(family.linear_layers)
    named = PEFT(peft_config='{"peft_type": "MISS", "target_modules": ["query"]}').method(family)
    assert named.target_modules == {"query"}


@pytest.mark.parametrize("technique", BY_FILE)
def test_a_method_is_tried_on_the_shapes_of_a_model_alone(technique, tiny):
    for family_name in ("bert", "t5"):
        if not refused(technique, family_name):
            config = models.load_config(models.resolve_checkpoint(tiny(family_name)))
            models.check_method(
                technique_of(technique).method(FAMILIES[family_name]), config, FAMILIES[family_name], QA
            )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"peft_type": "C3A", "block_size": 7}, "C3A on this bert model: PEFT refuses these values .* block size"),
        ({"peft_type": "MISS", "r": 0}, "MISS on this bert model: PEFT refuses"),
        ({"peft_type": "MISS", "target_modules": ["no_such_layer"]}, "no_such_layer|No modules were targeted"),
        ({"peft_type": "WAVEFT", "n_frequency": 10**6}, "WAVEFT on this bert model: PEFT refuses"),
        ({"peft_type": "MISS", "target_modules": "["}, "MISS on this bert model: PEFT refuses .* unterminated"),
        ({"peft_type": "VERA", "r": -1}, "VERA on this bert model: PEFT refuses .* negative dimension"),
        ({"peft_type": "ADALORA", "total_step": 1000, "beta1": 2.0}, "ADALORA on this bert model: PEFT refuses .* AssertionError"),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": -1}, "PREFIX_TUNING on this bert model: PEFT refuses"),
        ({"peft_type": "P_TUNING", "num_virtual_tokens": 4, "encoder_hidden_size": -1}, "P_TUNING on this bert model: PEFT refuses"),
        (
            {"peft_type": "P_TUNING", "num_virtual_tokens": 4, "encoder_reparameterization_type": "GRU"},
            "P_TUNING on this bert model: PEFT refuses .* type not recognized",
        ),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_the_layers_are_refused_before_weights_are_read(content, message, tiny):
    family = FAMILIES["bert"]
    config = models.load_config(models.resolve_checkpoint(tiny("bert")))
    with pytest.raises(UserError, match=message) as found:
        models.check_method(PEFT(peft_config=json.dumps(content)).method(family), config, family, QA)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("family_name", "words"), [("gpt2", "wte"), ("gemma", "embed_tokens"), ("bart", "shared")]
)
def test_an_update_of_words_that_are_the_output_too_is_refused(family_name, words, tiny):
    """Merged into the weight that both share, it would change the output layer."""
    family, head = FAMILIES[family_name], usual_head(family_name)
    for kind, fields, fits in (
        ("LORA", {"target_modules": [words]}, False),
        ("LORA", {"trainable_token_indices": [1]}, True),
        ("TRAINABLE_TOKENS", {"token_indices": [1]}, True),
    ):
        model, _ = models.load_base(models.resolve_checkpoint(tiny(family_name)), head)
        method = PEFT(peft_config=json.dumps({"peft_type": kind, **fields})).method(family)
        if fits:
            models.apply(method, model, family, head)
        else:
            with pytest.raises(
                UserError, match=f"LORA on this {family_name} model: its word embeddings are its"
            ):
                models.apply(method, model, family, head)


def test_values_that_do_not_go_together_are_one_line():
    content = {"peft_type": "ADALORA", "total_step": 10, "tinit": 20}
    with pytest.raises(
        UserError, match="PEFT ADALORA cannot be set up with these values: .* budgeting phase"
    ):
        PEFT(peft_config=json.dumps(content)).method(FAMILIES["bert"])


@pytest.mark.parametrize("kind", sorted(peft_kinds.LINEAR_ONLY))
def test_what_is_refused_for_conv1d_cannot_be_put_on_it(kind, tiny):
    family = FAMILIES["gpt2"]
    with pytest.raises(UserError, match=f"PEFT {kind} does not work with gpt2: .*Conv1D"):
        technique_of(f"peft {kind}").method(family)
    model, _ = models.load_base(models.resolve_checkpoint(tiny("gpt2")))
    method = peft.PeftConfig.from_peft_type(**CONFIGS[kind], target_modules=family.linear_layers)
    with pytest.raises(UserError, match="PEFT refuses these values|trains nothing beside the head"):
        models.apply(method, model, family)


@pytest.mark.parametrize("family_name", sorted(FAMILIES))
@pytest.mark.parametrize("kind", sorted(peft_kinds.LIKE))
def test_a_file_is_refused_where_the_technique_of_its_kind_is(kind, family_name):
    """A prefix that no attention reads would train the head alone."""
    family = FAMILIES[family_name]
    for head in family.heads:
        reason = family.refusal(peft_kinds.LIKE[kind], head)
        if reason is None:
            if not (family.conv1d and kind in peft_kinds.LINEAR_ONLY):
                technique_of(f"peft {kind}").method(family)
            continue
        with pytest.raises(UserError, match=f"{kind} does not work with {family_name}: ") as found:
            technique_of(f"peft {kind}").method(family)
        assert reason in str(found.value)


@pytest.mark.parametrize("family_name", sorted(FAMILIES))
def test_every_norm_is_tuned_where_a_file_names_none(family_name, tiny):
    family, head = FAMILIES[family_name], usual_head(family_name)
    config = models.load_config(models.resolve_checkpoint(tiny(family_name)))
    with torch.device("meta"):
        model = auto_class(head).from_config(config)
    found = {id(norm): name for name, norm in model.named_modules() if norm in norms(model)}
    made = models.apply(technique_of("peft LN_TUNING").method(family), model, family, head)
    trained = [name for name, p in made.named_parameters() if p.requires_grad]
    assert found
    for name in found.values():
        assert any(
            f"{name}.ln_tuning_layers." in each or f"{name}.modules_to_save." in each for each in trained
        ), name


def test_virtual_tokens_of_a_file_take_room():
    assert technique_of("peft P_TUNING").virtual_tokens == 5
    assert technique_of("peft PROMPT_TUNING").virtual_tokens == 5
    assert technique_of("peft PREFIX_TUNING").virtual_tokens == 0 == technique_of("peft MISS").virtual_tokens


def test_defaults_of_a_field_are_kept_as_they_are():
    torch.manual_seed(0)
    config = technique_of("peft VERA").method(FAMILIES["bert"])
    assert (config.r, config.save_projection, config.projection_prng_key) == (8, True, 0)


@pytest.mark.parametrize(
    "content",
    [
        {"peft_type": "TRAINABLE_TOKENS", "token_indices": [1]},
        {"peft_type": "LORA", "trainable_token_indices": [1]},
    ],
    ids=lambda content: content["peft_type"],
)
def test_tokens_that_nobody_reads_are_not_trained(content, tiny):
    """PEFT puts them on an embedding that BART's encoder and decoder share by weight alone."""
    family = FAMILIES["bart"]
    method = PEFT(peft_config=json.dumps(content)).method(family)
    model, _ = models.load_base(models.resolve_checkpoint(tiny("bart")), QA)
    with pytest.raises(
        UserError, match="bart model: its encoder and decoder read words from embeddings that share"
    ):
        models.apply(method, model, family, QA)


@pytest.mark.parametrize("family_name", ["modernbert", "llama", "t5"])
def test_biases_that_there_are_not_are_not_trained(family_name):
    method = PEFT(peft_config=json.dumps({"peft_type": "LORA", "bias": "all"}))
    with pytest.raises(
        UserError, match=f"bias all of PEFT LORA does not work with {family_name}: its layers have no"
    ):
        method.method(FAMILIES[family_name])
    assert method.method(FAMILIES["bert"]).bias == "all"
