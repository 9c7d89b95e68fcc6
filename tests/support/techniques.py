"""The techniques of all scripts: a new script is in every generated test at once."""

from common.api.technique_scripts import technique_scripts
from common.paths import ROOT

SCRIPTS = sorted((ROOT / "scripts").glob("bert_fine_tuning*.py"))
TECHNIQUES = {key: kind for key, (kind, _) in technique_scripts().items()}
assert len(TECHNIQUES) == len(SCRIPTS) > 5

SMALL = {"fourierft": {"n_frequency": 100, "scaling": 10.0}}
"""Technique → fields that fit the small layers of a tiny model."""


def small(technique: str):
    """A technique as it is put on tiny models."""
    return TECHNIQUES[technique](**SMALL.get(technique, {}))
