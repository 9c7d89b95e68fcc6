"""Scripts in processes of their own that begin with their imports done, which is most of what a script of a test computes: they
are forked as the rows of a study are."""

import json
import os
import subprocess
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from common.studies import row_starter

BEGUN = Path(__file__).with_name("begun.py")

EACH = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "PYTEST_CURRENT_TEST")
"""What no import reads from the environment: it may differ from one script to the next."""


class Starter:
    """Starts scripts one after another."""

    def __init__(self):
        self._rows, self._environment, self._lock = row_starter.Starter(), None, threading.Lock()

    def run(self, command, cwd=None, seconds=300):
        """What `subprocess.run` gives for `python COMMAND`, or None where its imports must be its own: they may depend on
        the environment. A script that takes too long is killed."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            environment = {name: value for name, value in os.environ.items() if name not in EACH}
            if self._environment is None:
                self._environment = environment
            if environment != self._environment:
                return None
            with TemporaryDirectory() as folder:
                out, err = Path(folder, "out"), Path(folder, "err")
                sent = json.dumps([command, str(cwd or Path.cwd()), dict(os.environ), str(err)])
                with out.open("w") as log, err.open("w") as held:
                    process = self._rows.start([str(BEGUN), sent], log, held)
                timer = threading.Timer(seconds, process.kill)
                timer.start()
                code = process.wait()
                timer.cancel()
                return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())
        finally:
            self._lock.release()


STARTER = Starter()
