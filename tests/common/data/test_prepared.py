"""A folder of prepared data: what is loaded from it, what may replace it, and what never does."""

from pathlib import Path

import pytest

from common.data import questions as data
from common.data.prepared import load
from common.data.squad_json import read_squad_json
from common.errors import UserError


@pytest.mark.parametrize(
    "fault",
    [
        "record",
        "record of another kind",
        "no record",
        "arrow",
        "missing",
        "train/state.json",
        "dataset_dict.json",
    ],
)
def test_a_changed_folder_is_not_loaded(fault, prepared):
    folder, _ = prepared
    arrow = next(folder.rglob("train/*.arrow"))
    if fault.startswith("record"):
        (folder / "record.json").write_text("{" if fault == "record" else "[]")
    elif fault == "no record":
        (folder / "record.json").unlink()
    elif fault == "missing":
        arrow.unlink()
    elif fault == "arrow":
        content = bytearray(arrow.read_bytes())
        content[len(content) // 2] ^= 1
        arrow.write_bytes(content)
    else:
        (folder / fault).write_text((folder / fault).read_text().replace("train", "tr"))
        (folder / fault).write_text((folder / fault).read_text() + " ")
    with pytest.raises(UserError, match="prepare_data.py"):
        load(folder)


def test_no_folder_is_told_how_to_be_made(tmp_path):
    with pytest.raises(UserError, match="prepare_data.py --output_dir"):
        load(tmp_path / "nowhere")


def test_fingerprint_notices_any_edit(files):
    examples = read_squad_json(files[0]).examples
    splits = {"train": examples, "validation": [], "test": []}
    known = {data.fingerprint(splits)}
    for column, value in (
        ("question", "Which?"),
        ("context", "x"),
        ("id", "x"),
        ("title", "x"),
        ("answers", {"text": [], "answer_start": []}),
        ("answers", {"text": ["blue"], "answer_start": [0]}),
    ):
        edited = [*examples[:50], {**examples[50], column: value}, *examples[51:]]
        known.add(data.fingerprint({**splits, "train": edited}))
    known.add(data.fingerprint({"train": [], "validation": examples, "test": []}))
    assert len(known) == 8


def test_a_failed_preparation_leaves_what_was_there(prepared, files, tmp_path):
    folder, record = prepared
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError):
        data.prepare_files(tmp_path / "bad.json", files[1], folder)
    assert load(folder)[1] == record


def test_a_failure_while_writing_leaves_what_was_there(prepared, files, monkeypatch):
    folder, record = prepared
    rename = type(folder).rename

    def fails_at_last(self, target):
        if self.name.endswith(".squad_data.part"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(type(folder), "rename", fails_at_last)
    with pytest.raises(UserError, match="No space left"):
        data.prepare_files(*files, folder, seed=7)
    assert load(folder)[1] == record
    assert {p.name for p in folder.parent.iterdir()} == {"squad_data", ".squad_data.lock"}


def test_a_prepared_folder_is_replaced_even_if_damaged(prepared, files):
    folder, record = prepared
    for content in (None, "{"):
        if content:
            (folder / "record.json").write_text(content)
        (folder / "train" / "cache-0123.arrow").write_bytes(b"what datasets.map leaves here")
        assert data.prepare_files(*files, folder, seed=7).fingerprint != record.fingerprint
        assert load(folder)[1].seed == 7 and not (folder / "train" / "cache-0123.arrow").exists()


@pytest.mark.parametrize(
    "record",
    [None, '{"mine": 1}', "[]", '{"fingerprint": "x"}'],
    ids=["none", "another", "list", "like ours"],
)
def test_a_strangers_folder_is_never_replaced(record, files, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    if record:
        (tmp_path / "mine" / "record.json").write_text(record)
    with pytest.raises(UserError, match="did not write"):
        data.prepare_files(*files, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_record_of_something_else_is_kept(files, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "record.json").write_text('{"mine": 1}')
    with pytest.raises(UserError, match="did not write record.json"):
        data.prepare_files(*files, tmp_path / "mine")
    assert (tmp_path / "mine" / "record.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("place", ["thesis.txt", "train/thesis.txt", "notes/thesis.txt"])
def test_a_file_that_was_put_into_our_folder_is_kept(place, prepared, files):
    folder, record = prepared
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text("years of work")
    with pytest.raises(UserError, match="did not write"):
        data.prepare_files(*files, folder, seed=7)
    assert (folder / place).exists() and load(folder)[1] == record


def test_the_folder_may_be_empty_or_here_or_a_link(files, tmp_path, monkeypatch):
    for name in ("empty", "here", "target"):
        (tmp_path / name).mkdir()
    data.prepare_files(*files, tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "here")
    data.prepare_files(*files, Path("."))
    (tmp_path / "link").symlink_to(tmp_path / "target")
    data.prepare_files(*files, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    for name in ("empty", "here", "target", "link"):
        assert load(tmp_path / name)[0]["train"].num_rows
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        data.prepare_files(*files, tmp_path / "file")


def test_a_record_that_is_a_folder_is_one_clear_line(tmp_path):
    (tmp_path / "data" / "record.json").mkdir(parents=True)
    with pytest.raises(UserError, match="record.json cannot be read: Is a directory"):
        load(tmp_path / "data")
