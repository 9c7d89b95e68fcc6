"""A checkpoint is as it was written, or it is not used."""

import os

import pytest

from common.training import checkpoints


def make(folder, step, keep=9):
    aside = folder / checkpoints.WRITING / f"checkpoint-{step}"
    aside.mkdir(parents=True)
    for name in ("trainable.safetensors", "optimizer.pt", "trainer_state.json"):
        (aside / name).write_bytes(f"{name} of step {step}".encode() * 20)
    checkpoints.seal(aside, {"step": step})
    checkpoints.place(aside, folder, keep)
    return folder / f"checkpoint-{step}"


@pytest.mark.parametrize(
    "file", ["trainable.safetensors", "optimizer.pt", "trainer_state.json", checkpoints.SEAL]
)
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "changed"])
def test_the_one_before_a_damaged_checkpoint_is_used(tmp_path, capsys, file, damage):
    before, last = make(tmp_path, 9), make(tmp_path, 10)
    assert checkpoints.newest(tmp_path) == last and checkpoints.notes(last) == {"step": 10}
    content = (last / file).read_bytes()
    if damage == "gone":
        (last / file).unlink()
    else:
        changed = {"cut": content[:-3], "empty": b"", "changed": b"\xff" + content[1:]}
        (last / file).write_bytes(changed[damage])
    assert checkpoints.newest(tmp_path) == before
    assert "checkpoint-10 is not used" in capsys.readouterr().err


def test_one_that_was_being_written_or_removed_is_none(tmp_path):
    (tmp_path / checkpoints.WRITING / "checkpoint-12").mkdir(parents=True)
    (tmp_path / "checkpoint-4").mkdir()
    assert checkpoints.newest(tmp_path) is None
    assert checkpoints.newest(make(tmp_path, 8).parent) == tmp_path / "checkpoint-8"


def test_a_clock_that_was_set_back_takes_no_old_one_for_the_latest(tmp_path):
    for step, seconds in ((8, 2_000_000_000), (9, 1_000_000_000)):
        os.utime(make(tmp_path, step), (seconds, seconds))
    last = make(tmp_path, 10, keep=2)
    assert checkpoints.newest(tmp_path) == last
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-9"]
