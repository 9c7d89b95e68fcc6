"""What is known of PEFT's types, as data: which of them can be trained by file, and what each cannot do."""

WORKING = (
    "ADALORA",
    "ADAMSS",
    "BEFT",
    "BOFT",
    "C3A",
    "DEFT",
    "DELORA",
    "FOURIERFT",
    "FROD",
    "GLORA",
    "GRALORA",
    "HIRA",
    "HRA",
    "IA3",
    "LILY",
    "LN_TUNING",
    "LOHA",
    "LOKR",
    "LORA",
    "MISS",
    "OFT",
    "OSF",
    "PEANUT",
    "PREFIX_TUNING",
    "PROMPT_TUNING",
    "PSOFT",
    "PVERA",
    "P_TUNING",
    "RANDLORA",
    "ROAD",
    "SHIRA",
    "SUPERTUNING",
    "TINYLORA",
    "TRAINABLE_TOKENS",
    "UNILORA",
    "VBLORA",
    "VERA",
    "WAVEFT",
)
"""PEFT's types that can be trained by file."""

REFUSED = {
    "ADAPTION_PROMPT": "PEFT has it for decoders only: Llama, Mistral, GPT-2",
    "CARTRIDGE": "it distils long contexts into the cache of a decoder",
    "CPT": "it needs the tokens of a prompt and their kinds, which a configuration cannot give for each text",
    "MULTITASK_PROMPT_TUNING": "it needs the number of a task with each text",
    "POLY": "it needs the number of a task with each text",
    "SHADOW": "its blocks pass on two states at once, which the blocks of these families cannot take",
    "XLORA": "it mixes adapters that are trained already",
}
"""PEFT's other types → why they cannot."""

PROMPT_TYPES = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
"""Types whose virtual tokens the suite computes itself (virtual_tokens.py)."""

IN_INPUT = ("PROMPT_TUNING", "P_TUNING")
"""Those of them that stand among the tokens of the input."""

LINEAR_ONLY = frozenset(
    {
        "ADAMSS",
        "BEFT",
        "BOFT",
        "C3A",
        "DELORA",
        "GLORA",
        "HRA",
        "LILY",
        "LOHA",
        "LOKR",
        "MISS",
        "OFT",
        "OSF",
        "PEANUT",
        "PSOFT",
        "ROAD",
        "SHIRA",
        "SUPERTUNING",
    }
)
"""Types whose layers PEFT has for nn.Linear, and not for GPT-2's Conv1D."""

LIKE = {
    "BEFT": "bitfit",
    "PREFIX_TUNING": "prefix-tuning",
    "PROMPT_TUNING": "prompt-tuning",
    "P_TUNING": "prompt-encoder",
}
"""Type → the technique whose refusals by families hold for it too."""

_SET = "the suite sets it"
SET_BY_SUITE = {
    "auto_mapping": _SET,
    "base_model_name_or_path": "--model_checkpoint names the base",
    "fan_in_fan_out": "the family's layers decide it",
    "inference_mode": "a run trains",
    "modules_to_save": "the head of the task is always trained",
    "num_attention_heads": "the model decides it",
    "num_layers": "the model decides it",
    "num_transformer_submodules": "the model decides it",
    "peft_version": "PEFT's installed version counts",
    "revision": "--model_checkpoint names the base",
    "runtime_config": "it is for GPUs whose memory is too small",
    "task_type": "--task names the task",
    "token_dim": "the model decides it",
}
"""Field → why a file cannot set it."""

FROM_DATA = "it prepares the adapter from data or from a decomposition of the base, before training"
_DECODERS = "it is for decoders"
_UNTRIED = "nobody has tried it in this suite"
_TEXT = "a text that the virtual tokens start from needs a tokenizer"
_DEVICES = "it needs quantized or distributed layers"
_LORA = {
    "alora_invocation_tokens": _DECODERS,
    "arrow_config": "it mixes adapters that are trained already",
    "corda_config": FROM_DATA,
    "eva_config": FROM_DATA,
    "kasa_config": _UNTRIED,
    "layer_replication": "the model keeps its layers",
    "loftq_config": _DEVICES,
    "lora_ga_config": FROM_DATA,
    "megatron_config": _DEVICES,
    "megatron_core": _DEVICES,
    "monteclora_config": _UNTRIED,
    "target_parameters": "the suite's models have no bare parameters to update",
    "use_bdlora": _UNTRIED,
    "use_qalora": _DEVICES,
    "velora_config": _UNTRIED,
}
_UNREAD = "AdaLoRA does not read it"
BARRED = {
    "LORA": _LORA,
    # PEFT declares its fields as LoRA's and a few more.
    "ADALORA": _LORA
    | dict.fromkeys(
        ("alpha_pattern", "init_lora_weights", "lora_bias", "rank_pattern", "use_dora", "use_rslora"), _UNREAD
    )
    | {"r": "AdaLoRA reads init_r and target_r instead"},
    "ADAMSS": {"use_asa": "its schedule needs a trainer that drives it"},
    "PROMPT_TUNING": dict.fromkeys(
        ("prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"), _TEXT
    ),
    "FROD": {"runtime_offload_base_weight": _DEVICES},
}
"""Type → field → why it cannot be set to anything but its default."""

INITS = (True, False, "gaussian", "orthogonal")
"""Values of `init_lora_weights` that need nothing but the shapes of the layers."""

CANNOT_MERGE = frozenset({"LILY"})
"""Types whose update depends on the input, so that no weight can hold it."""

NEED_WEIGHTS = frozenset({"ADAMSS", "FROD", "PROMPT_TUNING", "SHIRA"})
"""Types that look at the base's weights when they are put on it."""
