import json
import multiprocessing
import shutil
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import data
from common.errors import UserError
from common.squad_json import read_squad_json
from tests.scripts.conftest import squad_json


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")

    def article(name, questions):
        rows = []
        for i in range(questions):
            context = f"{name} has part {i // 2}, which is blue."
            answers = {"text": ["blue"], "answer_start": [context.index("blue")]}
            rows.append(
                {
                    "id": f"{name}-{i}",
                    "title": name,
                    "context": context,
                    "question": "Which colour?",
                    "answers": answers,
                }
            )
        return rows

    train = [e for n in range(20) for e in article(f"train{n}", 5 + n % 3)]
    test = [e for n in range(3) for e in article(f"test{n}", 4)]
    for name, examples in (("train", train), ("test", test)):
        (folder / f"{name}.json").write_text(squad_json(examples, "1.1"))
    return folder / "train.json", folder / "test.json"


@pytest.fixture
def prepared(files, tmp_path):
    folder = tmp_path / "squad_data"
    return folder, data.prepare_files(*files, folder)


def test_what_is_prepared_is_what_is_loaded(prepared):
    from datasets import load_from_disk

    folder, record = prepared
    splits, loaded = data.load(folder)
    assert loaded == record and set(load_from_disk(str(folder))) == {"train", "validation", "test"}
    assert {n: len(s) for n, s in splits.items()} == {n: c["questions"] for n, c in record["counts"].items()}
    assert record["fingerprint"] == data.fingerprint({n: s.to_list() for n, s in splits.items()})
    assert [f["name"] for f in record["files"]] == ["train.json", "test.json"]
    assert not [p.name for p in folder.parent.iterdir() if p.name.endswith((".part", ".old"))]


def test_validation_is_whole_articles_and_repeats_by_seed(prepared, files, tmp_path):
    splits, record = data.load(prepared[0])
    titles = {name: set(split["title"]) for name, split in splits.items()}
    contexts = {name: set(split["context"]) for name, split in splits.items()}
    assert not titles["train"] & titles["validation"] and not contexts["train"] & contexts["validation"]
    assert 0.05 <= len(splits["validation"]) / (len(splits["validation"]) + len(splits["train"])) <= 0.15
    again = data.prepare_files(*files, tmp_path / "again")
    other = data.prepare_files(*files, tmp_path / "other", seed=7)
    assert again["fingerprint"] == record["fingerprint"] != other["fingerprint"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), min_size=2, max_size=40), st.integers(0, 3))
def test_carving_never_puts_a_paragraph_on_both_sides(pairs, seed):
    examples = [{"id": str(i), "title": f"t{t}", "context": f"c{c}"} for i, (t, c) in enumerate(pairs)]
    if len({e["context"] for e in examples}) < 2:
        return
    try:
        train, validation = data.carve(examples, 0.2, seed)
    except UserError:
        # Every article shares a paragraph with another one.
        return
    assert train and validation and len(train) + len(validation) == len(examples)
    assert not {e["context"] for e in train} & {e["context"] for e in validation}


def test_a_single_article_is_carved_by_paragraph():
    examples = [{"id": str(i), "title": "t", "context": f"c{i // 3}"} for i in range(30)]
    train, validation = data.carve(examples, 0.1, 0)
    assert validation and not {e["context"] for e in train} & {e["context"] for e in validation}


@pytest.mark.parametrize("fault", ["record", "no record", "arrow", "missing"])
def test_a_changed_folder_is_not_loaded(fault, prepared):
    folder, _ = prepared
    arrow = next(folder.rglob("train/*.arrow"))
    if fault == "record":
        (folder / "record.json").write_text("{")
    elif fault == "no record":
        (folder / "record.json").unlink()
    elif fault == "missing":
        arrow.unlink()
    else:
        content = bytearray(arrow.read_bytes())
        content[len(content) // 2] ^= 1
        arrow.write_bytes(content)
    with pytest.raises(UserError, match="prepare_data.py"):
        data.load(folder)


def test_fingerprint_notices_any_edit(files):
    examples = read_squad_json(files[0]).examples
    splits = {"train": examples, "validation": [], "test": []}
    known = {data.fingerprint(splits)}
    for column, value in (
        ("question", "Which?"),
        ("context", "x"),
        ("id", "x"),
        ("answers", {"text": [], "answer_start": []}),
    ):
        edited = [*examples[:50], {**examples[50], column: value}, *examples[51:]]
        known.add(data.fingerprint({**splits, "train": edited}))
    known.add(data.fingerprint({"train": [], "validation": examples, "test": []}))
    assert len(known) == 6


def test_a_failed_preparation_leaves_what_was_there(prepared, files, tmp_path):
    folder, record = prepared
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError):
        data.prepare_files(tmp_path / "bad.json", files[1], folder)
    assert data.load(folder)[1] == record


def test_a_strangers_folder_is_never_replaced(files, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="did not write"):
        data.prepare_files(*files, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_mixed_versions_and_ids_in_both_files_are_refused(files, tmp_path):
    v2 = json.loads(files[1].read_text()) | {"version": "v2.0"}
    (tmp_path / "v2.json").write_text(json.dumps(v2))
    with pytest.raises(UserError, match="one version"):
        data.prepare_files(files[0], tmp_path / "v2.json", tmp_path / "out")
    with pytest.raises(UserError, match="stands twice"):
        data.prepare_files(files[0], files[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_saved_dataset_keeps_its_splits(prepared, tmp_path):
    from datasets import load_from_disk

    folder, record = prepared
    again = data.prepare_saved(folder, tmp_path / "again")
    assert again["fingerprint"] == record["fingerprint"]
    two = load_from_disk(str(folder))
    del two["test"]
    two.save_to_disk(str(tmp_path / "two"))
    carved = data.prepare_saved(tmp_path / "two", tmp_path / "carved")
    assert carved["counts"]["test"] == record["counts"]["validation"]
    with pytest.raises(UserError, match="save_to_disk"):
        data.prepare_saved(tmp_path, tmp_path / "x")


@pytest.fixture
def offline(monkeypatch):
    def refused(*args, **kwargs):
        raise OSError("offline")

    monkeypatch.setattr(socket, "create_connection", refused)


def test_the_hub_is_never_a_folder_that_happens_to_lie_here(offline, tmp_path, monkeypatch, prepared):
    """`load_dataset("squad")` would take ./squad."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(prepared[0], tmp_path / "squad")
    shutil.copytree(prepared[0], tmp_path / "rajpurkar" / "squad")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="--source files or sample"):
        data.prepare_hub("squad", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _ensure(folder):
    data.hub_answers = lambda: False
    return data.ensure(folder)[1]["fingerprint"]


def test_two_processes_that_find_no_data_both_get_it(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        prints = pool.map(_ensure, [tmp_path / "squad_data"] * 2)
    assert len(set(prints)) == 1
    assert not [p for p in tmp_path.iterdir() if p.name.endswith((".part", ".old"))]


def test_missing_data_becomes_the_sample_and_says_so(offline, tmp_path, capsys):
    _, record = data.ensure(tmp_path / "squad_data")
    assert record["name"] == "sample" and "packaged sample" in capsys.readouterr().err
    data.ensure(tmp_path / "squad_data")
    assert not capsys.readouterr().err


def test_every_span_of_the_sample_and_what_it_promises():
    parts = {name: read_squad_json(data.SAMPLE / f"{name}-v2.0.json") for name in ("train", "test")}
    examples = {name: part.examples for name, part in parts.items()}
    everything = [*examples["train"], *examples["test"]]
    for part in parts.values():
        assert part.version == "v2.0" and not part.repaired and not part.dropped
    for e in everything:
        for text, start in zip(e["answers"]["text"], e["answers"]["answer_start"], strict=True):
            assert e["context"][start : start + len(text)] == text
            assert not text[0].isspace() and not text[-1].isspace()
            edges = e["context"][start - 1 : start], e["context"][start + len(text) : start + len(text) + 1]
            assert not any(edge.isalnum() for edge in edges)
        assert 40 <= len(e["context"].split()) <= 110
        assert e["question"].endswith("?")
    assert len({e["context"] for e in everything}) >= 240
    assert len({e["title"] for e in everything}) >= 40
    assert sum(bool(e["answers"]["text"]) for e in everything) >= 1200
    assert sum(not e["answers"]["text"] for e in everything) >= 200
    assert len({e["question"] for e in everything}) == len(everything) == len({e["id"] for e in everything})
    assert len({e["title"] for e in examples["test"]}) >= 8
    assert all(len(e["answers"]["text"]) in (0, 2, 3) for e in examples["test"])
    for column in ("title", "context"):
        assert not {e[column] for e in examples["train"]} & {e[column] for e in examples["test"]}
