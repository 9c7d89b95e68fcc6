"""Any data set of the hub, by a repository in the cache and by a folder laid out like one; nothing here asks a network."""

import pytest

from common.data import hub_sets, labelled_texts, sources
from common.data.prepared import load
from common.errors import NotHere, UserError
from tests.common.data.test_tables import write
from tests.support.question_rows import ROWS, flat
from tests.support.texts import make_texts


@pytest.fixture(autouse=True)
def caches(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def repository(folder, splits, kind="parquet"):
    """A folder with the files of splits, as a repository of the hub has them."""
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        write(folder / "data" / f"{split}-00000-of-00001.{kind}", rows)
    return folder


def cached(tmp_path, repo, splits, commit="c0ffee" * 6 + "beef"):
    """The same in the hub's cache, as a download leaves it."""
    place = tmp_path / "hub" / f"datasets--{repo.replace('/', '--')}"
    repository(place / "snapshots" / commit, splits)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    return commit


def prepare(tmp_path, dataset, **given):
    given = {"dataset": str(dataset), **given}
    return sources.prepare("hub", given, tmp_path / "out", validation_share=0.3)[0]


SPLITS = {"train": flat(ROWS[:12]), "test": flat(ROWS[12:])}


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_folder_laid_out_like_a_repository(kind, tmp_path):
    record = prepare(tmp_path, repository(tmp_path / "towers", SPLITS, kind))
    assert (record.source, record.kind, record.version) == ("hub", "qa", "v2.0")
    assert record.hub["train_split"] == "train" and record.hub["test_split"] == "test"
    assert [file["name"].split("-")[0] for file in record.files] == ["train", "test"]
    assert [e["id"] for e in load(tmp_path / "out")[0]["test"]] == [e["id"] for e in ROWS[12:]]
    assert record.test_by is None and record.validation_by in ("article", "paragraph")


def test_a_repository_in_the_cache_is_read_offline(tmp_path, monkeypatch):
    commit = cached(tmp_path, "ada/towers", SPLITS)
    monkeypatch.chdir(tmp_path)
    # A folder of that name in the working directory is never taken for it.
    repository(tmp_path / "ada" / "towers", {"train": [{"mine": 1}]})
    record = prepare(tmp_path, "ada/towers")
    assert record.name == "ada/towers" and record.hub["revision"] == commit
    assert record.counts["test"]["questions"] == 8
    folder = sources.prepare(
        "hub", {"dataset": "ada/towers"}, tmp_path / "towers_data", validation_share=0.3
    )[1]
    assert folder == tmp_path / "towers_data"


def test_what_the_cache_does_not_hold_is_not_here(tmp_path):
    with pytest.raises(NotHere, match="The hub's bob/boats is not available: the hub cannot be reached"):
        prepare(tmp_path, "bob/boats")
    with pytest.raises(UserError, match="no such folder"):
        prepare(tmp_path, "./nowhere")
    assert not (tmp_path / "out").exists()


def test_validation_is_the_test_where_there_is_no_other(tmp_path):
    folder = repository(tmp_path / "a", {"train": SPLITS["train"], "validation": SPLITS["test"]})
    record = prepare(tmp_path, folder)
    assert record.hub["test_split"] == "validation" and record.counts["test"]["questions"] == 8
    three = {"train": flat(ROWS[:8]), "validation": flat(ROWS[8:12]), "test": flat(ROWS[12:])}
    record = prepare(tmp_path, repository(tmp_path / "b", three))
    assert record.validation_by == "given" and record.counts["validation"]["questions"] == 4
    record = prepare(tmp_path, tmp_path / "b", test_split="validation", train_split="train[:100%]")
    assert record.counts["test"]["questions"] == 4 and record.validation_by != "given"


def test_only_train_is_carved(tmp_path):
    record = prepare(tmp_path, repository(tmp_path / "a", {"train": flat()}))
    assert record.test_by and sum(c["questions"] for c in record.counts.values()) == 20


def test_a_language_is_for_questions(tmp_path):
    folder = repository(tmp_path / "towers", SPLITS)
    assert prepare(tmp_path, folder, language="de").language == "de"
    texts = repository(tmp_path / "texts", {"train": make_texts(16, 1)})
    with pytest.raises(UserError, match="--language is for questions, and .*texts has labelled texts"):
        prepare(tmp_path, texts, language="de")


def test_configs_splits_and_columns_that_are_not_there_are_named(tmp_path):
    folder = repository(tmp_path / "a", SPLITS)
    with pytest.raises(UserError, match="has no split 'dev'; it has train, test: --test_split names one"):
        prepare(tmp_path, folder, test_split="dev")
    with pytest.raises(UserError, match="--config B cannot be read"):
        prepare(tmp_path, folder, config="B")
    odd = repository(tmp_path / "b", {"train": [{"x": 1, "y": "a"}]})
    with pytest.raises(UserError, match="has the columns 'x', 'y': it does not show .*--columns"):
        prepare(tmp_path, odd)


def test_configs_of_the_card(tmp_path):
    folder = repository(tmp_path / "a", {})
    write(folder / "en.csv", flat(question="ask"))
    write(folder / "de.csv", flat(ROWS[:12]))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files: en.csv\n- config_name: de\n  data_files:\n  - split: train\n    path: de.csv\n---\n"
    )
    assert sum(c["questions"] for c in prepare(tmp_path, folder, config="de").counts.values()) == 12
    record = prepare(tmp_path, folder, config="en", columns="question=ask")
    assert sum(c["questions"] for c in record.counts.values()) == 20 and record.hub["config"] == "en"
    with pytest.raises(UserError, match="cannot be read: .*[Cc]onfig"):
        prepare(tmp_path, folder)


def test_labelled_texts_of_the_hub(tmp_path):
    folder = repository(tmp_path / "moods", {"train": make_texts(40, 1), "test": make_texts(10, 2)})
    record = prepare(tmp_path, folder)
    files = [
        write(tmp_path / f"{name}.parquet", make_texts(n, seed))
        for name, n, seed in (("a", 40, 1), ("b", 10, 2))
    ]
    again = labelled_texts.prepare_files(*files, tmp_path / "p", validation_share=0.3)
    assert (record.kind, record.fingerprint) == ("text", again.fingerprint)


def test_faulty_rows_of_the_hub_can_be_skipped(tmp_path):
    rows = [*flat(ROWS[:12]), {**flat(ROWS[:1])[0], "id": "bad", "question": " "}]
    folder = repository(tmp_path / "a", {"train": rows, "test": flat(ROWS[12:])})
    with pytest.raises(UserError, match="row 12 .id 'bad'.: the question is empty"):
        prepare(tmp_path, folder)
    assert prepare(tmp_path, folder, on_bad_rows="skip").skipped == 1


def test_a_path_is_told_from_a_name():
    assert [hub_sets.is_folder(name) for name in ("./a", "/a", "~/a", "a", "a/b")] == [True] * 3 + [False] * 2
