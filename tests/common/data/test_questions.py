import json
import multiprocessing

import pytest

from common.data import hub_files
from common.data import questions as data
from common.data.prepared import load
from common.data.squad_json import read_squad_json
from common.errors import UserError
from tests.scripts.conftest import squad_json


def test_what_is_prepared_is_what_is_loaded(prepared):
    from datasets import load_from_disk

    folder, record = prepared
    splits, loaded = load(folder)
    assert loaded == record and set(load_from_disk(str(folder))) == {"train", "validation", "test"}
    assert {n: len(s) for n, s in splits.items()} == {n: c["questions"] for n, c in record.counts.items()}
    assert record.fingerprint == data.fingerprint({n: s.to_list() for n, s in splits.items()})
    assert [f["name"] for f in record.files] == ["train.json", "test.json"]
    assert {p.name for p in folder.parent.iterdir()} == {"squad_data", ".squad_data.lock"}


def test_validation_is_whole_articles_and_repeats_by_seed(prepared, files, tmp_path):
    splits, record = load(prepared[0])
    titles = {name: set(split["title"]) for name, split in splits.items()}
    contexts = {name: set(split["context"]) for name, split in splits.items()}
    assert not titles["train"] & titles["validation"] and not contexts["train"] & contexts["validation"]
    assert 0.05 <= len(splits["validation"]) / (len(splits["validation"]) + len(splits["train"])) <= 0.15
    again = data.prepare_files(*files, tmp_path / "again")
    other = data.prepare_files(*files, tmp_path / "other", seed=7)
    assert again.fingerprint == record.fingerprint != other.fingerprint


def test_a_single_article_is_carved_by_paragraph_and_the_record_says_so(files, tmp_path):
    one = {e["context"]: e | {"title": "t"} for e in read_squad_json(files[0]).examples}
    (tmp_path / "one.json").write_text(squad_json(list(one.values()), "1.1"))
    record = data.prepare_files(tmp_path / "one.json", files[1], tmp_path / "out")
    splits, _ = load(tmp_path / "out")
    assert record.validation_by == "paragraph" and len(splits["validation"])
    assert not set(splits["train"]["context"]) & set(splits["validation"]["context"])
    assert data.prepare_files(*files, tmp_path / "many").validation_by == "article"


def test_half_a_surrogate_pair_is_refused_with_the_id(files, tmp_path):
    text = files[0].read_text().replace("train3 has part 0", "train3 has \\ud800 part 0")
    bad = json.loads(text)
    for article in bad["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                qa["answers"][0]["answer_start"] = paragraph["context"].index("blue")
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    with pytest.raises(UserError, match="id 'train3-0'.*surrogate"):
        data.prepare_files(tmp_path / "bad.json", files[1], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mixed_versions_and_ids_in_both_files_are_refused(files, tmp_path):
    v2 = json.loads(files[1].read_text()) | {"version": "v2.0"}
    (tmp_path / "v2.json").write_text(json.dumps(v2))
    with pytest.raises(UserError, match="one version"):
        data.prepare_files(files[0], tmp_path / "v2.json", tmp_path / "out")
    with pytest.raises(UserError, match="is used twice"):
        data.prepare_files(files[0], files[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_saved_dataset_keeps_its_splits(prepared, tmp_path):
    from datasets import load_from_disk

    folder, record = prepared
    again = data.prepare_saved(folder, tmp_path / "again")
    assert again.fingerprint == record.fingerprint
    two = load_from_disk(str(folder))
    del two["test"]
    two.save_to_disk(str(tmp_path / "two"))
    carved = data.prepare_saved(tmp_path / "two", tmp_path / "carved")
    assert carved.counts["test"] == record.counts["validation"]
    with pytest.raises(UserError, match="save_to_disk"):
        data.prepare_saved(tmp_path, tmp_path / "x")
    del two["validation"]
    two.save_to_disk(str(tmp_path / "one"))
    alone = data.prepare_saved(tmp_path / "one", tmp_path / "alone")
    assert alone.test_by == "article" and sum(c["questions"] for c in alone.counts.values()) == len(
        two["train"]
    )


def _save(path, train, test):
    from datasets import Dataset, DatasetDict

    parts = {"train": train, "test": test}
    DatasetDict({n: Dataset.from_list(rows) for n, rows in parts.items()}).save_to_disk(str(path))


def _row(number, **more):
    answers = {"text": ["blue"], "answer_start": [len(f"c{number} ")]}
    row = {"id": str(number), "title": f"t{number}", "context": f"c{number} blue", "question": "Which?"}
    return row | {"answers": answers} | more


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"context": None}, "'context' must be text, not NoneType"),
        ({"context": " ", "answers": {"text": [], "answer_start": []}}, "the context is empty"),
        ({"question": ""}, "the question is empty"),
        ({"answers": "blue"}, "'answers' must be a list, not str"),
        ({"answers": None}, "'answers' must be a list, not NoneType"),
        (
            {"answers": {"text": ["blue"], "answer_start": []}},
            "'answers' must hold as many 'answer_start' as 'text'",
        ),
        ({"answers": {"text": [" "], "answer_start": [2]}}, "the text of each answer is empty"),
    ],
)
def test_a_bad_saved_dataset_is_refused_by_split_and_id(fault, message, tmp_path):
    # A column has one type: a row of another type stands alone.
    rows = [_row(0, **fault)] + ([] if "answers" in fault else [_row(2)])
    _save(tmp_path / "saved", rows, [_row(1)])
    with pytest.raises(UserError, match=f"saved/train: row 0 .id '0'.: ?{message}"):
        data.prepare_saved(tmp_path / "saved", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_saved_dataset_is_read_by_the_rules_of_files(tmp_path):
    """Ids that are numbers, offsets that are wrong, and rows with faults, of which all are listed."""
    rows = [_row(n, id=n) for n in range(30)]
    rows[0]["answers"] = {"text": ["Blue"], "answer_start": [2]}
    rows[1]["answers"] = {"text": ["mauve"], "answer_start": [2]}
    test = [_row(n, id=n) for n in range(30, 33)]
    test[0]["answers"] = {"text": ["mauve"], "answer_start": [-1]}
    _save(tmp_path / "saved", rows, test)
    record = data.prepare_saved(tmp_path / "saved", tmp_path / "out")
    assert (record.repaired, record.dropped, record.version) == (1, 2, "v1.1")
    splits = load(tmp_path / "out")[0]
    assert splits["test"][0]["id"] == "30" and splits["test"][0]["answers"]["text"] == ["mauve"]
    for e in splits["train"]:
        (text,), (start,) = e["answers"]["text"], e["answers"]["answer_start"]
        assert e["context"].startswith(text, start)
    rows[2]["question"] = rows[3]["question"] = " "
    _save(tmp_path / "faulty", rows, test)
    with pytest.raises(UserError, match="has 2 faults(.|\n)*row 2 .id '2'.(.|\n)*row 3"):
        data.prepare_saved(tmp_path / "faulty", tmp_path / "x")
    record = data.prepare_saved(tmp_path / "faulty", tmp_path / "x", on_bad_rows="skip")
    assert record.skipped == 2 and len(json.loads((tmp_path / "x/skipped.json").read_text())) == 2


def test_ids_that_both_files_count_from_0_are_told_apart(tmp_path):
    """What is scored keeps its ids; the same question in both files is still refused."""
    rows, test = [_row(f"c{n}", id=n) for n in range(20)], [_row(f"d{n}", id=n) for n in range(4)]
    rows[19]["id"] = "train-0"
    for name, part in (("train", rows), ("test", test)):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    record = data.prepare_files(tmp_path / "train.json", tmp_path / "test.json", tmp_path / "out")
    splits = load(tmp_path / "out")[0]
    assert record.renamed_ids == 4 and splits["test"]["id"] == ["0", "1", "2", "3"]
    ids = {*splits["train"]["id"], *splits["validation"]["id"]}
    assert ids == {"train-train-0", "train-0", *(f"train-{n}" for n in (1, 2, 3)), *map(str, range(4, 19))}
    (tmp_path / "test.json").write_text(json.dumps(rows[:1]))
    with pytest.raises(UserError, match="id '0' is used twice"):
        data.prepare_files(tmp_path / "train.json", tmp_path / "test.json", tmp_path / "out")


def test_a_saved_dataset_without_titles_is_carved_by_paragraph(tmp_path):
    rows = [{k: v for k, v in _row(n).items() if k != "title"} for n in range(30)]
    _save(tmp_path / "saved", rows[:20], rows[20:])
    assert data.prepare_saved(tmp_path / "saved", tmp_path / "out").counts["validation"]["paragraphs"] == 2


@pytest.mark.parametrize("column", ["id", "context", "question", "answers"])
def test_a_saved_dataset_without_a_column_is_refused(column, tmp_path):
    without = lambda n: {k: v for k, v in _row(n).items() if k != column}  # noqa: E731
    _save(tmp_path / "saved", [without(0)], [without(1)])
    with pytest.raises(UserError, match=f"split 'train' has no column '{column}'"):
        data.prepare_saved(tmp_path / "saved", tmp_path / "out")


def test_paragraphs_of_test_that_stand_in_train_are_counted(tmp_path):
    train = [_row(n) for n in range(20)]
    _save(tmp_path / "saved", train, [_row("x", context="c3 blue"), _row("y")])
    assert data.prepare_saved(tmp_path / "saved", tmp_path / "out").test_paragraphs_also_in_train == 1


def test_the_hubs_development_set_is_test(hub, files, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_files, "hub_answers", lambda: True)
    record = data.prepare_hub("squad", tmp_path / "out")
    assert record.fingerprint == data.prepare_files(*files, tmp_path / "files").fingerprint
    assert (record.source, record.name, record.version) == ("hub", "squad", "v1.1")
    assert [f["name"] for f in record.files] == [
        f"{s}-00000-of-00001.parquet" for s in ("train", "validation")
    ]
    repository, asked = hub[1][0]
    assert repository == "rajpurkar/squad" and not asked["local_files_only"] and asked["etag_timeout"] <= 10


def test_the_hubs_bad_files_are_named(hub, tmp_path):
    next(hub[0].rglob("validation-*")).unlink()
    with pytest.raises(UserError, match="no validation file"):
        data.prepare_hub("squad", tmp_path / "out")
    with pytest.raises(UserError, match="squad_v2"):
        data.prepare_hub("squad_v3", tmp_path / "out")


def _prepare(task):
    files, folder, seed = task
    return data.prepare_files(*files, folder, seed=seed).fingerprint


def test_two_processes_that_prepare_at_once_both_succeed(files, tmp_path):
    tasks = [(files, tmp_path / "squad_data", seed) for seed in (1, 2)] * 2
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        prints = pool.map(_prepare, tasks, chunksize=1)
    assert len(set(prints)) == 2 and load(tmp_path / "squad_data")[1].fingerprint in prints


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


def test_the_samples_readme_tells_its_counts():
    readme = (data.SAMPLE / "README.md").read_text()
    for name in ("train", "test"):
        examples = read_squad_json(data.SAMPLE / f"{name}-v2.0.json").examples
        answerable = sum(bool(e["answers"]["text"]) for e in examples)
        numbers = (
            len({e["title"] for e in examples}),
            len({e["context"] for e in examples}),
            answerable,
            len(examples) - answerable,
        )
        assert f"| `{name}-v2.0.json` | {' | '.join(f'{n:,}' for n in numbers)} |" in readme
