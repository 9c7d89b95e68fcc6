"""Rows that are forked from a process with everything imported are processes as any other, and nothing passes between them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from common.paths import ROOT
from common.studies import row_starter
from common.studies.folder import Folder
from common.studies.runner import Runner

# Changes what a process has one of, after it has written what it found.
ROW = """
import json, os, random, signal, sys, warnings
import numpy, torch
found = {
    "threads": torch.get_num_threads(), "precision": torch.get_float32_matmul_precision(),
    "deterministic": torch.are_deterministic_algorithms_enabled(), "seed": torch.initial_seed(),
    "environment": dict(os.environ), "cwd": os.getcwd(), "term": str(signal.getsignal(signal.SIGTERM)),
    "filters": len(warnings.filters), "active": "mlflow" in sys.modules and str(sys.modules["mlflow"].active_run()),
    "own": os.getpgrp() == os.getsid(0) == os.getpid(), "name": __name__, "warm": "transformers" in sys.modules,
    "path": sys.path, "stdin": os.readlink("/proc/self/fd/0"), "argv": sys.argv, "drawn": numpy.random.random(),
}
print(json.dumps(found))
torch.set_num_threads(3)
torch.set_float32_matmul_precision("medium")
torch.use_deterministic_algorithms(True)
torch.manual_seed(1)
os.environ["LEFT"] = "1"
os.chdir("/")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
warnings.simplefilter("error")
"""


@pytest.fixture(scope="module")
def starter():
    if sys.platform != "linux":
        pytest.skip("rows are forked on Linux alone")
    with row_starter.Starter() as starter:
        starter.ready()
        yield starter


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "study")
    with folder.held():
        yield folder


def row(folder, program, start, name="row"):
    file = folder.path / f"{name}.py"
    file.write_text(program)
    return folder.run([str(file), "--flag", "a b"], name, start)


def said(folder, name="row"):
    return folder.log(name).read_text()


@pytest.mark.long
def test_nothing_passes_from_one_row_to_the_next_and_each_is_as_one_that_starts_by_itself(starter, folder):
    for name in ("first", "second"):
        assert row(folder, ROW, starter.start, name) == (0, "")
    assert row(folder, ROW, row_starter.started, "cold") == (0, "")
    first, second, cold = (json.loads(said(folder, name)) for name in ("first", "second", "cold"))
    for found in (first, second, cold):
        found["environment"].pop("PYTEST_CURRENT_TEST", None)
    assert first["warm"] and second["warm"] and not cold["warm"]
    assert first["drawn"] != second["drawn"]
    for found in (first, second):
        assert found["own"] and found["name"] == "__main__" and found["argv"][1:] == ["--flag", "a b"]
        assert found["active"] == "None"
        for same in ("threads", "precision", "deterministic", "environment", "cwd", "term", "stdin"):
            assert found[same] == cold[same], same
    assert first["filters"] == second["filters"]


@pytest.mark.long
def test_a_row_need_not_look_at_every_installed_package(starter, folder):
    program = (
        "import importlib_metadata\n"
        "from common.serving.model_logging import look_at_packages\n"
        "importlib_metadata.packages_distributions = lambda: print('looked') or {}\n"
        "look_at_packages()\n"
    )
    for start in (starter.start, row_starter.started):
        file = folder.path / "packages.py"
        file.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}")
        assert folder.run([str(file)], start.__name__, start) == (0, "")
    assert "looked" not in said(folder, "start") and "looked" in said(folder, "started")


@pytest.mark.long
def test_a_row_ends_as_any_process_and_only_its_log_has_what_it_said(starter, folder):
    assert row(folder, "import sys; print('error: no', file=sys.stderr); sys.exit(2)", starter.start) == (
        2,
        "no",
    )
    assert row(folder, "raise ValueError('why')", starter.start) == (1, "ValueError: why")
    assert row(folder, "import os; os.kill(os.getpid(), 9)", starter.start)[0] == -9
    assert row(folder, "import ctypes; ctypes.string_at(0)", starter.start) == (-11, "ended by SIGSEGV")
    assert row(folder, "import atexit; atexit.register(print, 'last'); print('first')", starter.start)[0] == 0
    assert said(folder).endswith("first\nlast\n") and said(folder).startswith("error: no\n")


ENDINGS = """
import atexit, sys, threading, time
class Held:
    def __del__(self):
        print("taken apart")
held = Held()
atexit.register(print, "registered")
def work():
    time.sleep(0.3)
    print("thread", end="")
threading.Thread(target=work).start()
ENDING
"""


@pytest.mark.long
def test_a_row_leaves_as_python_does_but_takes_nothing_apart(starter, folder):
    for i, ending in enumerate(("", "sys.exit('why')", "sys.exit(259)", "1 / 0", "raise KeyboardInterrupt")):
        codes, texts = [], []
        for start in (starter.start, row_starter.started):
            name = f"{start.__name__}{i}"
            codes.append(row(folder, ENDINGS.replace("ENDING", ending), start, name)[0])
            texts.append(said(folder, name))
        assert codes[0] == codes[1], ending
        for text in texts:
            assert "threadregistered\n" in text and ("why\n" in text) == ("why" in ending)
            assert ("Error" in text) == (ending == "1 / 0")
        # Ctrl-C ends a process in Python's own way.
        assert ("taken apart" in texts[0]) == ("Interrupt" in ending) and "taken apart" in texts[1]


@pytest.mark.long
def test_a_starter_that_is_lent_forks_the_rows_of_several_studies(starter, tmp_path):
    seen = []
    for name in ("first", "second"):
        runner = Runner(SimpleNamespace(folder=Folder(tmp_path / name), study=None), {}, starter=starter)
        with runner.folder.held(), runner.workers():
            row(runner.folder, "import os; print(os.getppid())", runner.starter.start)
        seen.append(said(runner.folder))
    assert seen[0] == seen[1]


@pytest.mark.long
def test_a_row_goes_on_without_the_process_that_forked_it_and_the_next_has_another(starter, folder):
    program = "import os, time, signal\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(1)\nprint('done')"
    code, why = row(folder, program, starter.start)
    assert code is None and "is unknown" in why and said(folder) == "done\n"
    assert row(folder, ROW, starter.start, "next") == (0, "")
    assert json.loads(said(folder, "next"))["warm"]


STUCK = """
import ctypes, sys
from common.cli import guarded

def work():
    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    print("ready", flush=True)
    lock(mutex)

sys.exit(guarded(work))
"""


@pytest.mark.long
def test_a_row_that_is_stuck_in_a_native_call_ends_in_time(starter, folder):
    found = []
    thread = threading.Thread(target=lambda: found.append(row(folder, STUCK, starter.start)), daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    try:
        while "ready" not in (said(folder) if folder.log("row").exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        begun = time.monotonic()
        os.kill(folder.state["child"]["pid"], signal.SIGTERM)
        thread.join(60)
        assert time.monotonic() - begun < 15 and found[0][0] == 143
    finally:
        # A row that did not end would stay for ever.
        if thread.is_alive():
            os.kill(folder.state["child"]["pid"], signal.SIGKILL)


@pytest.mark.long
def test_sigterm_reaches_a_row_and_its_lock_is_its_own(starter, folder):
    program = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(143))\nprint('ready', flush=True)\ntime.sleep(60)"
    found = []

    def start(*arguments):
        found.append(starter.start(*arguments))
        return found[0]

    thread = threading.Thread(target=lambda: found.append(row(folder, program, start)))
    thread.start()
    deadline = time.monotonic() + 60
    while not found or "ready" not in (said(folder) if folder.log("row").exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    held = {os.path.realpath(f"/proc/{found[0].pid}/fd/{n}") for n in os.listdir(f"/proc/{found[0].pid}/fd")}
    assert str(folder.path / ".child.lock") in held and not any("socket" in file for file in held)
    found[0].terminate()
    thread.join(60)
    assert found[1][0] == 143


@pytest.mark.long
@pytest.mark.parametrize("file", ["scripts/new.py", "common/models/inner/new.py"])
def test_changed_code_is_imported_again(file, starter, folder, monkeypatch):
    row(folder, "import os; print(os.getppid())", starter.start)
    row(folder, "import os; print(os.getppid())", starter.start)
    changed = folder.path / file
    changed.parent.mkdir(parents=True)
    changed.write_text("")
    monkeypatch.setattr(row_starter, "ROOT", folder.path)
    row(folder, "import os; print(os.getppid())", starter.start)
    first, second, third = said(folder).split()
    assert first == second != third


@pytest.mark.long
def test_imports_ask_for_no_gpu_and_start_no_thread():
    program = """
import importlib, sys, threading
sys.path.insert(0, sys.argv[1])
import torch
def refuse(*_): raise SystemExit("asked for a GPU")
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device"):
    setattr(torch.cuda, name, refuse)
from common.studies import row_starter
for name in row_starter.PRELOADED:
    importlib.import_module(name)
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", program, str(ROOT)], check=True, timeout=120)


def test_where_nothing_can_be_forked_a_row_starts_as_any_program(folder, monkeypatch):
    monkeypatch.setattr(sys, "platform", "other")
    with row_starter.Starter() as starter:
        assert row(folder, "print('hello')", starter.start) == (0, "")
    assert said(folder) == "hello\n"


def test_a_process_that_cannot_import_is_done_without(folder, monkeypatch):
    monkeypatch.setattr(row_starter, "SCRIPT", folder.path / "none.py")
    with row_starter.Starter() as starter:
        assert row(folder, "print('hello')", starter.start) == (0, "")
        assert row(folder, "import os; os.kill(os.getpid(), 15)", starter.start) == (
            -signal.SIGTERM,
            "ended by SIGTERM",
        )
