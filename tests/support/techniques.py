"""The techniques of all scripts: a new script is in every generated test at once."""

import json

from common.api.technique_scripts import technique_scripts
from common.paths import ROOT
from tests.support.peft_types import CONFIGS

SCRIPTS = sorted((ROOT / "scripts").glob("bert_fine_tuning*.py"))
TECHNIQUES = {key: kind for key, (kind, _) in technique_scripts().items()}
assert len(TECHNIQUES) == len(SCRIPTS) > 5

OF_FILES = "peft"
"""The technique that is PEFT's method in a file."""

DECLARED = sorted(TECHNIQUES.keys() - {OF_FILES})
"""The techniques that a script declares whole."""

BY_FILE = {f"{OF_FILES} {kind}": json.dumps(content) for kind, content in CONFIGS.items()}
"""PEFT's types as techniques → what a file holds."""

SMALL = {"fourierft": {"n_frequency": 100, "scaling": 10.0}}
"""Technique → fields that fit the small layers of a tiny model."""


def small(technique: str):
    """A technique, or a type of PEFT's by file, as it is put on tiny models."""
    if technique in BY_FILE:
        return TECHNIQUES[OF_FILES](peft_config=BY_FILE[technique])
    return TECHNIQUES[technique](**SMALL.get(technique, {}))
