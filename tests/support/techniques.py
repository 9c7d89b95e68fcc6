"""The techniques of all scripts: a new script is in every generated test at once."""

from common.api.technique_scripts import technique_scripts
from common.paths import ROOT

SCRIPTS = sorted((ROOT / "scripts").glob("bert_fine_tuning*.py"))
TECHNIQUES = {key: kind for key, (kind, _) in technique_scripts().items()}
assert len(TECHNIQUES) == len(SCRIPTS) > 5
