"""Where the project lies on this machine, and how its scripts are started from this shell."""

import os
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command(script: str) -> str:
    """What to type into this shell, where it stands, to start a script of the project."""
    return shlex.join([interpreter(), _shown(str(ROOT / "scripts" / script))])


def interpreter() -> str:
    """The Python that runs now, as this shell finds it: `python` in an activated environment, else its path."""
    own, found = os.path.abspath(sys.executable), shutil.which("python")
    # An environment has it under several names.
    same = (
        found
        and os.path.dirname(os.path.abspath(found)) == os.path.dirname(own)
        and os.path.samefile(found, own)
    )
    return "python" if same else _shown(own)


def _shown(path: str) -> str:
    """Relative where it lies below the working directory."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return path
    return os.path.relpath(path, here) if path.startswith(here.rstrip("/") + "/") else path


SAMPLE = Path(__file__).resolve().parent / "sample"
"""The packaged data: questions and film reviews that were written for this project."""
