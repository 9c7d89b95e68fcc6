"""The lock of a study's folder, and how a row's process ended."""

import os
import signal
import subprocess
import sys
import time

import pytest

from common.errors import UserError
from common.paths import ROOT
from common.studies.folder import Folder, reason


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "study")
    with folder.held():
        yield folder


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (0, "error: not this time", ""),
        (2, "step 1\nerror: too long\nbye\n", "too long"),
        (1, "Traceback\n  File\nValueError: no\n\n", "ValueError: no"),
        (1, " 10%|=\r 20%|==", "20%|=="),
        (3, "", "exit code 3"),
        (-9, "whatever", "ended by SIGKILL (out of memory?)"),
        (-15, "", "ended by SIGTERM"),
        (None, "whatever", "its exit code is unknown: the process that had started it was killed"),
    ],
)
def test_the_reason_is_one_line(code, said, expected):
    assert reason(code, said) == expected


def test_a_second_study_on_one_folder_is_refused(folder):
    with pytest.raises(UserError, match="in use by another process of this study"):
        with Folder(folder.path).held():
            pass


def test_a_folder_is_free_again_and_remembers(tmp_path):
    for times in range(2):
        folder = Folder(tmp_path / "study")
        with folder.held():
            assert folder.state == ({"rows": {}} if not times else {"rows": {"a": {"status": "failed"}}})
            folder.state["rows"]["a"] = {"status": "failed"}
            folder.save()


def test_a_damaged_note_and_a_place_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(UserError, match="study.json is damaged: remove it"):
        Folder(tmp_path)
    with pytest.raises(UserError, match="choose another --output_dir"):
        with Folder(tmp_path / "study.json" / "below").held():
            pass


def test_a_process_writes_to_its_log_and_only_its_last_words_are_the_reason(folder):
    assert folder.run(shell("echo error: first >&2; exit 2"), "row") == (2, "first")
    bar = "printf '  0%%|   | 0/4 [00:00<?, ?it/s]error: second\n  0%%|   | 0/4 [00:00<?, ?it/s]\n'; exit 2"
    assert folder.run(shell(bar), "bar") == (2, "second")
    assert folder.run(shell("echo hello"), "row") == (0, "")
    assert folder.run(shell("exit 4"), "row") == (4, "exit code 4")
    assert folder.log("row").read_text() == "error: first\nhello\n"


def test_sigterm_reaches_the_row_before_the_study_leaves(tmp_path):
    process = start(
        tmp_path, "trap 'echo marked; exit 143' TERM; echo ready; while true; do sleep 0.05; done"
    )
    until(lambda: "ready" in log(tmp_path))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert log(tmp_path) == "ready\nmarked\n"


@pytest.mark.long
def test_a_row_that_does_not_end_does_not_hold_its_study(tmp_path):
    process = start(tmp_path, "trap 'echo asked' TERM; echo ready; while true; do sleep 0.05; done")
    until(lambda: "ready" in log(tmp_path) and "child" in Folder(tmp_path).state)
    child = Folder(tmp_path).state["child"]["pid"]
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143 and time.monotonic() - begun < 15
    # Once: a second signal would cut the end of one that saves its checkpoint short.
    assert log(tmp_path) == "ready\nasked\n"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_what_a_killed_study_left_is_waited_for(tmp_path, capfd):
    process = start(tmp_path, f"echo ready; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo ended")
    until(lambda: "ready" in log(tmp_path) and "child" in Folder(tmp_path).state)
    process.kill()
    process.wait()
    waiting = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), "echo second"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = waiting.stderr.readline()
    child = Folder(tmp_path).state["child"]["pid"]
    assert f"Process {child} of a study that was killed is still training row" in said
    os.kill(child, 0)
    (tmp_path / "go").touch()
    assert waiting.wait(timeout=30) == 0
    assert log(tmp_path) == "ready\nended\nsecond\n"


PROGRAM = """
import sys
from pathlib import Path
from common.cli import guarded
from common.studies.folder import Folder

def main():
    folder = Folder(Path(sys.argv[1]))
    with folder.held():
        folder.run(["-c", "import os, sys; os.execvp('sh', ['sh', '-c', sys.argv[1]])", sys.argv[2]], "row")

sys.exit(guarded(main))
"""


def shell(command):
    """Arguments of Python that make it a shell with this command."""
    return ["-c", "import os, sys; os.execvp('sh', ['sh', '-c', sys.argv[1]])", command]


def start(path, command):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), command], cwd=ROOT)


def log(path):
    file = Folder(path).log("row")
    return file.read_text() if file.exists() else ""


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
