"""What is written is whole or not there: after errors, after kills in the middle, and after those between two renames."""

import os
import signal
import subprocess
import sys

import pytest

from common.atomic import atomic_write, beside, recover
from common.files import write_json
from common.paths import ROOT


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(path, text, folder):
    if folder:
        path.mkdir()
        path = path / "content"
    path.write_text(text)


def content(path):
    return (path / "content" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_it_takes_its_place_when_it_is_complete(folder, tmp_path):
    target = tmp_path / "target"
    for text in ("first", "second"):
        with atomic_write(target, durable=not folder, replace_folder=True) as part:
            fill(part, text, folder)
            assert content(target) == "first" if text == "second" else not target.exists()
        assert content(target) == text and names(tmp_path) == ["target"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(143)]
)
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_an_error_in_the_middle_leaves_what_was_there(folder, error, tmp_path):
    target = tmp_path / "target"
    with pytest.raises(type(error)), atomic_write(target) as part:
        fill(part, "half", folder)
        raise error
    assert names(tmp_path) == []
    fill(target, "old", folder)
    with pytest.raises(type(error)), atomic_write(target, replace_folder=True) as part:
        fill(part, "half", folder)
        raise error
    assert content(target) == "old" and names(tmp_path) == ["target"]


def test_json_that_cannot_be_written_leaves_what_was_there(tmp_path):
    write_json(tmp_path / "a.json", {"a": "é"})
    before = (tmp_path / "a.json").read_bytes()
    assert before == '{"a":"é"}\n'.encode()
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_json(tmp_path / "a.json", {"a": "\ud800"})
    assert (tmp_path / "a.json").read_bytes() == before and names(tmp_path) == ["a.json"]


def test_nothing_written_is_an_error(tmp_path):
    (tmp_path / "target").write_text("old")
    for durable in (False, True):
        with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "target", durable=durable):
            pass
    assert (tmp_path / "target").read_text() == "old"


def test_a_folder_with_content_is_replaced_only_where_that_is_wanted(tmp_path):
    fill(tmp_path / "target", "old", folder=True)
    with pytest.raises(OSError), atomic_write(tmp_path / "target") as part:
        fill(part, "new", folder=True)
    assert content(tmp_path / "target") == "old" and names(tmp_path) == ["target"]


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "target"
    fill(target, "old", folder=True)
    rename = type(target).rename

    def fails(self, to):
        if self == beside(target):
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(type(target), "rename", fails)
    with pytest.raises(OSError, match="Input/output"), atomic_write(target, replace_folder=True) as part:
        fill(part, "new", folder=True)
    assert content(target) == "old" and names(tmp_path) == ["target"]


KILLED = """
import os, signal, sys
from pathlib import Path
from common import atomic
target, folder, where = Path(sys.argv[1]), sys.argv[2] == "folder", sys.argv[3]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "between two renames":
    rename = type(target).rename
    type(target).rename = lambda self, to: die() if self == atomic.beside(target) else rename(self, to)
with atomic.atomic_write(target, replace_folder=True) as part:
    if folder:
        part.mkdir()
        (part / "content").write_text("half")
    else:
        part.write_text("half")
    if where == "in the middle":
        die()
"""


@pytest.mark.parametrize(
    "kind, where", [("file", "in the middle"), ("folder", "in the middle"), ("folder", "between two renames")]
)
def test_a_kill_leaves_the_old_content_whole(kind, where, tmp_path):
    target, folder = tmp_path / "target", kind == "folder"
    fill(target, "old", folder)
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), kind, where], cwd=ROOT, env=os.environ)
    assert done.returncode == -signal.SIGKILL and beside(target).exists()
    assert target.exists() == (where == "in the middle")
    recover(target)
    assert content(target) == "old" and names(tmp_path) == ["target"]
    with atomic_write(target, replace_folder=True) as part:
        fill(part, "new", folder)
    assert content(target) == "new" and names(tmp_path) == ["target"]
