"""The technique scripts as modules, found by their names: a new script is in every generated test at once."""

import dataclasses
import importlib.util
import sys

from common.paths import ROOT
from common.training.settings import Technique

SCRIPTS = sorted((ROOT / "scripts").glob("bert_fine_tuning*.py"))


def _load(path):
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location(path.stem.replace("-", "_"), path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    found = [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Technique) and v is not Technique
    ]
    assert len(found) == 1 and dataclasses.is_dataclass(found[0]), path
    return found[0]


TECHNIQUES = {technique.key: technique for technique in map(_load, SCRIPTS)}
