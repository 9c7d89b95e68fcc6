"""Scripts run within the process of the test: without the seconds that an interpreter needs to start and import."""

import gc
import io
import runpy
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import pytest

from common import stopping


def call(file, *args, cwd=None):
    """(returncode, stdout, stderr) of `python FILE ARGS`."""
    out, err = io.StringIO(), io.StringIO()
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        # A process of the script's own would leave nothing behind that is never collected.
        patch.setattr(gc, "freeze", lambda: None)
        patch.setattr(sys, "argv", [str(file), *map(str, args)])
        patch.syspath_prepend(file.parent)
        if cwd:
            patch.chdir(cwd)
        code = 0
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as left:
            code = left.code or 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())
