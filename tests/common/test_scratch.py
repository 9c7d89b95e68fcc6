"""Copies of models go with the process that uses them, also where it is killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from common import scratch
from common.paths import ROOT


def test_a_folder_goes_with_its_use(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError), scratch.scratch() as folder:
        assert folder.is_dir() and not list(folder.iterdir())
        (folder / "weights").write_text("")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


USES = {
    "a copy": "folder, _ = scratch.own_folder()\n(folder / 'weights').write_text('')\nprint(folder, flush=True)\nsignal.pause()",
    "the gate": "import pathlib, subprocess\n"
    "def asked(command, cwd, **_):\n    print(cwd, flush=True)\n    signal.pause()\n"
    "subprocess.run = asked\n"
    "checking.in_fresh_process(pathlib.Path('model'), [])",
}


@pytest.mark.long
@pytest.mark.parametrize("use", ["a copy", "the gate"])
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(use, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import signal, sys\nfrom common import scratch\nfrom common.registry import checking\n"
        f"signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))\n{USES[use]}"
    )
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )  # fmt: skip
        left = Path(process.stdout.readline().strip())
        with scratch.scratch():
            assert left.is_dir()
        process.send_signal(number)
        process.wait(60)
        assert left.is_dir() == (number == signal.SIGKILL)
    stranger = tmp_path / "stored-model-of-something-else"
    stranger.mkdir()
    with scratch.scratch() as mine:
        assert not left.exists() and stranger.is_dir() and mine.is_dir()
        assert len(list(tmp_path.iterdir())) == 2
