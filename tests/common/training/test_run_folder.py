"""The output folder: one process's, and recognised whatever a killed one left of it."""

import json

import pytest

from common.errors import UserError
from common.files import write_json
from common.training.run_folder import STATE, own, read_state, remove


def begin(folder, **more):
    folder.mkdir()
    write_json(folder / STATE, {"run_fingerprint": "key", "run_id": "1"} | more)
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "weights").write_text("w")
    return folder


def test_a_second_process_is_refused_while_the_first_one_works(tmp_path):
    with own(tmp_path / "out", "key", resume=False):
        with pytest.raises(UserError, match="in use by another training"):
            own(tmp_path / "out", "key", resume=True).__enter__()
    with own(tmp_path / "out", "key", resume=False):
        pass
    # Neither of them has done anything.
    assert not (tmp_path / "out.lock").exists() and not (tmp_path / "out").exists()


def test_an_unfinished_run_goes_on_or_is_left_and_removed(tmp_path):
    folder, left = begin(tmp_path / "out"), []
    with own(folder, "key", resume=True, leave=left.append) as state:
        assert state["run_id"] == "1" and (folder / "checkpoint-1").exists() and not left
    with own(folder, "key", resume=False, leave=left.append) as state:
        assert state == {} and left == [folder] and not any(folder.iterdir())


def test_other_settings_do_not_go_on(tmp_path):
    with pytest.raises(UserError, match="other settings"):
        own(begin(tmp_path / "out"), "another key", resume=True).__enter__()


@pytest.mark.parametrize("finished", [True, False])
def test_a_removal_that_was_killed_is_completed(tmp_path, finished):
    """A run that had finished is known to have; one that was to make way for a new one is not taken for it."""
    folder = begin(tmp_path / "out", removing=True, finished=finished)
    with own(folder, "key", resume=True) as state:
        assert state.get("run_id") == ("1" if finished else None)
        assert not (folder / "checkpoint-1").exists()


def test_the_state_goes_last(tmp_path, monkeypatch):
    folder, seen = begin(tmp_path / "out"), []
    from pathlib import Path

    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda self, **k: (seen.append(self.name), unlink(self, **k)))
    (folder / "a").write_text("")
    (folder / "z").write_text("")
    remove(folder, read_state(folder))
    assert seen[-1] == STATE and not folder.exists()


def test_a_damaged_state_is_one_clear_line(tmp_path):
    folder = begin(tmp_path / "out")
    (folder / STATE).write_text(json.dumps({"run_id": 1})[:-2])
    with pytest.raises(UserError, match="run.json is damaged"):
        own(folder, "key", resume=True).__enter__()


@pytest.mark.parametrize("where", ["/proc/out", "{file}/out"])
def test_where_nothing_can_be_written_is_one_clear_line(tmp_path, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written.*--output_dir"):
        own(tmp_path.__class__(where.format(file=tmp_path / "file")), "key", resume=False).__enter__()
