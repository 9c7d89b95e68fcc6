"""Python processes that have imported the library."""

import os
import subprocess
import sys

from common.paths import ROOT

CLIENT_OF = "import sys; sys.path.insert(0, {root!r})\nfrom pathlib import Path\nfrom common.tracking import runs, store\n"


def process(body, cwd, *arguments, **environment):
    """A Python process that has imported `store` and `tracking`, with no tracking URI set but what `environment` says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    program = CLIENT_OF.format(root=str(ROOT)) + body
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=cwd,
        env=kept | {"MLFLOW_DISABLE_TELEMETRY": "true"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
