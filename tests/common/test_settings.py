"""What the library sets before torch and MLflow are imported; a user's own value wins."""

import os
import subprocess
import sys

import pytest

from common.paths import ROOT

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.mark.parametrize(
    ("own", "spins"),
    [
        ({}, "5000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
        ({"GOMP_SPINCOUNT": "100"}, "100"),
        ({"KMP_BLOCKTIME": "5"}, "None"),
    ],
)
def test_threads_give_up_their_core_unless_the_user_says_otherwise(own, spins):
    """In child processes too, and before torch could have read it."""
    child = "import os; print(os.environ.get('GOMP_SPINCOUNT'))"
    program = (
        "import subprocess, sys, common; assert 'torch' not in sys.modules;"
        f" subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=kept | own, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == spins


def test_every_script_imports_the_library_before_torch():
    """OpenMP reads its settings once, while torch is imported."""
    heavy = (
        "torch",
        "transformers",
        "peft",
        "mlflow",
        "numpy",
        "datasets",
        "pandas",
        "sklearn",
        "accelerate",
    )
    found = []
    for file in sorted((ROOT / "scripts").glob("*.py")):
        lines = [line for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]
        first = next((i for i, line in enumerate(lines) if line.startswith("from common")), len(lines))
        found += [(file.name, line) for line in lines[:first] if line.split()[1].split(".")[0] in heavy]
    assert not found
