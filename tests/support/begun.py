"""What a process of `started.Starter` runs: a script, in the directory and the environment of the test."""

import json
import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    command, cwd, environment, err = json.loads(sys.argv[1])
    with open(err, "w") as file:
        os.dup2(file.fileno(), 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = command
    sys.path[0] = str(Path(command[0]).parent)
    runpy.run_path(command[0], run_name="__main__")
