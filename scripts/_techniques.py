"""The technique scripts beside this file, found by their names."""

import importlib.util
import sys
from pathlib import Path

from common.training.settings import Technique


def technique_scripts() -> dict[str, tuple[type[Technique], Path]]:
    """Technique key → its class and its script; a new technique is a new script."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("bert_fine_tuning*.py")):
        spec = importlib.util.spec_from_file_location(file.stem.replace("-", "_"), file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Technique) and kind is not Technique:
                found[kind.key] = kind, file
    return found
