"""What the project tells its users to type works in the shell that they have."""

import os
import shlex
import subprocess
import sys

import pytest

from common import paths


def told(cwd, path):
    """What a program that was started from a folder with a PATH says."""
    code = f"import sys; sys.path.insert(0, {str(paths.ROOT)!r}); from common import paths; print(paths.command('matrix.py'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={"PATH": path}, capture_output=True, text=True
    )
    return done.stdout.strip()


BARE = "/usr/bin:/bin"
ACTIVATED = os.path.dirname(sys.executable) + ":" + BARE


@pytest.mark.long
@pytest.mark.parametrize("path", (BARE, ACTIVATED), ids=("bare", "activated"))
@pytest.mark.parametrize("place", ("project", "elsewhere"))
def test_a_hint_is_a_line_that_this_shell_runs(path, place, tmp_path):
    cwd = paths.ROOT if place == "project" else tmp_path
    line = told(cwd, path)
    python, script = shlex.split(line)
    assert (python == "python") == (path == ACTIVATED)
    assert (script == "scripts/matrix.py") == (place == "project")
    done = subprocess.run(
        ["env", "-i", f"PATH={path}", "/bin/sh", "-c", line], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("| family |"), done.stderr
