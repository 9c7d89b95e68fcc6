"""Where the project is on this machine, and how its scripts are started from this shell."""

import os
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command(script: str) -> str:
    """The command that starts a script of the project from this shell's working directory."""
    return shlex.join([interpreter(), _shown(str(ROOT / "scripts" / script))])


def interpreter() -> str:
    """The running Python as this shell finds it: `python` in an activated environment, else its path."""
    own, found = os.path.abspath(sys.executable), shutil.which("python")
    # An environment holds it under several names.
    same = (
        found
        and os.path.dirname(os.path.abspath(found)) == os.path.dirname(own)
        and os.path.samefile(found, own)
    )
    return "python" if same else _shown(own)


def _shown(path: str) -> str:
    """The path, relative if it is below the working directory."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return path
    return os.path.relpath(path, here) if path.startswith(here.rstrip("/") + "/") else path


SAMPLE = Path(__file__).resolve().parent / "sample"
"""The packaged data: questions and film reviews written for this project."""
