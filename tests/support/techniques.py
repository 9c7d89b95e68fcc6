"""The techniques of all scripts: a new script is in every generated test at once."""

import json

from common.api.technique_scripts import technique_scripts
from common.errors import UserError
from common.paths import ROOT
from tests.support.peft_types import CONFIGS

SCRIPTS = sorted((ROOT / "scripts").glob("bert_fine_tuning*.py"))
TECHNIQUES = {key: kind for key, (kind, _) in technique_scripts().items()}
assert len(TECHNIQUES) == len(SCRIPTS) > 5

VARIANTS = {
    "adalora, often": ("adalora", {"interval": 2, "initial_r": 8, "r": 4, "learning_rate": 1e-2}),
    "lora, dora": ("lora", {"dora": True}),
    "lora, rslora": ("lora", {"rslora": True, "r": 12}),
    "lora, gaussian": ("lora", {"init": "gaussian"}),
    "lora, pissa": ("lora", {"init": "pissa", "r": 12}),
    "lora, pissa_niter_16": ("lora", {"init": "pissa_niter_16", "rslora": True, "r": 12}),
    "lora, olora": ("lora", {"init": "olora", "r": 12}),
    "lora, eva": ("lora", {"init": "eva"}),
    "lora, biases": ("lora", {"bias": "all"}),
    "lora, own biases": ("lora", {"bias": "lora_only"}),
    "prefix-tuning, gated": ("prefix-tuning", {"gating": True, "prefix_scale": 5.0}),
    "prefix-tuning, dropout": ("prefix-tuning", {"prefix_dropout": 0.2}),
    "lora, all at once": (
        "lora",
        {"dora": True, "rslora": True, "init": "pissa", "bias": "all", "targets": "attention"},
    ),
}
"""Techniques with settings that change what is computed: (key, settings)."""

OF_FILES = "peft"
"""The technique that is PEFT's method in a file."""

BY_FILE = {f"{OF_FILES} {kind}": json.dumps(content) for kind, content in CONFIGS.items()}
"""PEFT's types as techniques → what a file holds."""

SMALL = {"fourierft": {"n_frequency": 100, "scaling": 10.0}}
"""Technique → fields that fit the small layers of a tiny model."""

DECLARED = sorted(TECHNIQUES.keys() - {OF_FILES})
"""The techniques that a script declares whole."""

EVERY = sorted([*DECLARED, *VARIANTS])
"""What the generated tests cross with every family."""


def technique(name: str, **options):
    """A technique with its defaults, a variant of one, or a type of PEFT's by file, as it is put on tiny models.

    options: in the place of its own.
    """
    if name in BY_FILE:
        return TECHNIQUES[OF_FILES](peft_config=BY_FILE[name])
    key, settings = VARIANTS.get(name, (name, {}))
    return TECHNIQUES[key](**SMALL.get(key, {}) | settings | options)


def refusal(name: str, family, head: str) -> str | None:
    """Why a family with this head does not do a technique or a variant."""
    made = technique(name)
    if reason := family.refusal(made.key, head):
        return reason
    try:
        made.method(family)
    except UserError as error:
        return str(error)
    return None
