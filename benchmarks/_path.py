"""Puts the project root on the import path, and the right interpreter in place: every script imports this first.

Under a Python without the project's packages the script starts again with the Python of `.venv`; without a `.venv`, one
line says what to do. This file, and the scripts before they import anything from the project, also run under Python 3.6, so
that the line is printed there.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STARTED_AGAIN = "SUITE_STARTED_AGAIN"
"""Environment variable that tells the second interpreter not to start a third one."""


def missing() -> str:
    """What this interpreter lacks, as a phrase; "" if it has every package in requirements.txt."""
    if sys.version_info < (3, 11):  # noqa: UP036
        return "is older than 3.11"
    from importlib.metadata import PackageNotFoundError, distribution

    with open(os.path.join(ROOT, "requirements.txt"), encoding="utf-8") as lines:
        names = [line.split("==")[0].strip() for line in lines if "==" in line and line[0] != "#"]
    for name in names:
        try:
            distribution(name)
        except PackageNotFoundError:
            return "lacks " + name
    return ""


def settle(fault: str) -> None:
    """Start the script again with .venv's interpreter, or exit with code 2 and one line."""
    again = os.path.join(VENV, "bin", "python")
    inside = os.path.realpath(sys.prefix) == os.path.realpath(VENV)
    script = sys.argv[0]
    if (
        os.path.isfile(script)
        and os.access(again, os.X_OK)
        and not inside
        and not os.environ.get(STARTED_AGAIN)
    ):
        os.environ[STARTED_AGAIN] = "1"
        try:
            # Python's own options stay; Python before 3.10 does not record them.
            os.execv(again, [again] + list(getattr(sys, "orig_argv", [""] + sys.argv)[1:]))
        except OSError:
            pass
    sys.stderr.write(
        "error: this Python ({}, {}) {}: run `make .venv/.installed` in {}, then {} {}\n".format(
            sys.executable, ".".join(map(str, sys.version_info[:3])), fault, ROOT, again, script
        )
    )
    sys.exit(2)


fault = missing()
if fault:
    settle(fault)
os.environ.pop(STARTED_AGAIN, None)
sys.path.insert(0, ROOT)
