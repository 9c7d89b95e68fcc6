import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

from mlflow.models import set_model

if "suite_a79781974546" not in sys.modules:
    (folder,) = find_spec("suite_a79781974546").submodule_search_locations
    digest = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    if "suite_a79781974546" != f"suite_{digest.hexdigest()[:12]}":
        raise RuntimeError(f"{folder} was changed since this model was logged: its code is not run.")

from suite_a79781974546.classifying import MODEL

set_model(MODEL())
