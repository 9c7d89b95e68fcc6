"""A folder that holds nothing gets the hub's data or the sample, once, and says so."""

import multiprocessing

import pytest

from common.data import hub_files, questions
from common.data.ensure import ensure
from common.errors import UserError
from tests.support.questions import write_hub_files


def test_what_a_killed_process_left_is_put_back_or_cleared(prepared, files):
    folder, record = prepared
    folder.rename(folder.with_name(".squad_data.old"))
    (folder.with_name(".squad_data.part") / "train").mkdir(parents=True)
    assert ensure(folder)[1] == record
    assert {p.name for p in folder.parent.iterdir()} == {"squad_data", ".squad_data.lock"}


def test_missing_data_is_taken_from_the_cache_while_offline(hub, offline, tmp_path, capsys):
    assert ensure(tmp_path / "squad_data")[1].name == "squad"
    assert hub[1][0][1]["local_files_only"] and "the hub's squad" in capsys.readouterr().err


def test_a_hub_that_fails_half_way_gives_the_sample(tmp_path, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise TimeoutError("read timed out")

    monkeypatch.setattr(hub_files, "hub_answers", lambda: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    assert ensure(tmp_path / "squad_data")[1].name == "sample"
    assert "packaged sample" in capsys.readouterr().err
    with pytest.raises(UserError, match="TimeoutError.*--source files or sample"):
        questions.prepare_hub("squad", tmp_path / "out")


@pytest.mark.parametrize("here", ["squad", "rajpurkar/squad"])
def test_the_hub_is_never_a_folder_that_happens_to_lie_here(here, offline, files, tmp_path, monkeypatch):
    from datasets import load_dataset

    write_hub_files(tmp_path / here, files)
    monkeypatch.chdir(tmp_path)
    assert load_dataset(here, cache_dir=str(tmp_path / "datasets"))["train"].num_rows  # what must not happen
    with pytest.raises(UserError, match="--source files or sample"):
        questions.prepare_hub("squad", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert ensure(tmp_path / "squad_data")[1].name == "sample"


def _ensure(folder):
    hub_files.hub_answers = lambda: False
    return ensure(folder)[1].fingerprint


def test_two_processes_that_find_no_data_both_get_it(tmp_path, monkeypatch):
    # The new processes read it at import: what lies in a developer's cache must not decide.
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path.parent / "no cache"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        prints = pool.map(_ensure, [tmp_path / "squad_data"] * 2)
    assert len(set(prints)) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"squad_data", ".squad_data.lock"}


def test_missing_data_becomes_the_sample_and_says_so(offline, tmp_path, capsys):
    (tmp_path / "squad_data").mkdir()
    _, record = ensure(tmp_path / "squad_data")
    assert record.name == "sample" and "packaged sample" in capsys.readouterr().err
    ensure(tmp_path / "squad_data")
    assert not capsys.readouterr().err
