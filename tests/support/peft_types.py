"""A small configuration of each of PEFT's types that can be trained by file, for tiny models of every family."""

from common.models.peft_kinds import WORKING

_FIELDS = {
    "ADALORA": {"total_step": 100},
    "ADAMSS": {"r": 8},
    "BOFT": {"boft_n_butterfly_factor": 2},
    # Sizes of blocks and vectors divide those of all layers, and some of T5's have 24 rows.
    "C3A": {"block_size": 8},
    "DELORA": {"r": 2, "delora_lambda": 2},
    "FOURIERFT": {"n_frequency": 100, "scaling": 10.0},
    "FROD": {"progressbar": False},
    "GRALORA": {"r": 4},
    "LILY": {"r": 8, "stride_A": 1, "num_B": 2},
    "MISS": {"r": 2},
    "PEANUT": {"r": 8, "depth": 1},
    "PREFIX_TUNING": {"num_virtual_tokens": 5},
    "PROMPT_TUNING": {"num_virtual_tokens": 5, "prompt_tuning_init": "SAMPLE_VOCAB"},
    "PSOFT": {"r": 4, "psoft_alpha": 4},
    "PVERA": {"r": 8},
    "P_TUNING": {"num_virtual_tokens": 5},
    "RANDLORA": {"r": 8, "randlora_alpha": 16},
    "ROAD": {"group_size": 2},
    "SHIRA": {"r": 1},
    "SUPERTUNING": {"sparsity": 0.9},
    "TRAINABLE_TOKENS": {"token_indices": [0, 1, 3]},
    "VBLORA": {"vector_length": 8, "num_vectors": 8},
    "VERA": {"r": 8},
    "WAVEFT": {"n_frequency": 100, "scaling": 5.0},
}

SLOW = ("ADAMSS", "BOFT", "PEANUT")
"""Types whose layers take a second or more to make and train."""

CONFIGS = {kind: {"peft_type": kind} | _FIELDS.get(kind, {}) for kind in WORKING}
"""PEFT's type → what a file holds."""
