import json
from collections import Counter

import pytest

from common.data import labelled_texts, prepared
from common.data.ensure import ensure
from common.errors import UserError
from tests.scripts.conftest import run_here
from tests.support.texts import make_texts, write_csv, write_parquet

TRAIN, TEST = make_texts(60, 1), make_texts(20, 2)
SAMPLE_FINGERPRINT = "840ad94332da"
"""Of the packaged reviews: runs that were trained on them are compared by it."""


@pytest.fixture
def files(tmp_path):
    return write_parquet(tmp_path / "train.parquet", TRAIN), write_csv(tmp_path / "test.csv", TEST)


def test_what_is_prepared_is_what_is_loaded(files, tmp_path):
    record = labelled_texts.prepare_files(*files, tmp_path / "o", validation_share=0.2)
    splits, loaded = ensure(tmp_path / "o", "text")
    assert loaded == record
    assert {name: Counter(split["label"]) for name, split in splits.items()} == {
        "train": {0: 24, 1: 24},
        "validation": {0: 6, 1: 6},
        "test": {0: 10, 1: 10},
    }
    assert splits["test"].column_names == ["id", "text", "label"]
    assert [(e["text"], e["label"]) for e in splits["test"]] == [(e["text"], e["label"]) for e in TEST]
    assert (record.kind, record.labels, record.version) == (
        "text",
        ("negative", "positive"),
        "binary",
    )
    assert record.counts["validation"] == {"texts": 12, "different": 12, "negative": 6, "positive": 6}
    assert [f["name"] for f in record.files] == ["train.parquet", "test.csv"]
    assert record.fingerprint == labelled_texts.fingerprint({n: s.to_list() for n, s in splits.items()})
    other = labelled_texts.prepare_files(*files, tmp_path / "other", validation_share=0.2, seed=7)
    again = labelled_texts.prepare_files(*files, tmp_path / "again", validation_share=0.2)
    assert again.fingerprint == record.fingerprint != other.fingerprint


def test_the_original_folder_gives_the_same_texts(files, tmp_path):
    for split, rows in (("train", TRAIN), ("test", TEST)):
        for i, row in enumerate(rows):
            folder = tmp_path / "aclImdb" / split / ("neg", "pos")[row["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:03}_7.txt").write_text(row["text"], encoding="utf-8")
    (tmp_path / "aclImdb" / "train" / "unsup").mkdir()
    record = labelled_texts.prepare_aclimdb(tmp_path / "aclImdb", tmp_path / "o")
    by_files = labelled_texts.prepare_files(*files, tmp_path / "p")
    assert record.counts == by_files.counts
    one, other = (prepared.load(tmp_path / name)[0] for name in "op")
    for split in one:
        assert one[split]["text"] == other[split]["text"] and one[split]["label"] == other[split]["label"]
    assert one["test"]["id"][0] == "test/neg/000_7"
    assert [f["name"] for f in record.files] == ["train/neg", "train/pos", "test/neg", "test/pos"]
    (tmp_path / "aclImdb" / "train" / "pos" / "x.txt").write_bytes("schön".encode("latin-1"))
    with pytest.raises(UserError, match=r"pos/x.txt is not UTF-8: byte 3 is 0xf6"):
        labelled_texts.prepare_aclimdb(tmp_path / "aclImdb", tmp_path / "q")
    with pytest.raises(UserError, match=r"holds no .txt file; name the unpacked aclImdb"):
        labelled_texts.prepare_aclimdb(tmp_path, tmp_path / "q")


def test_spellings_of_labels_quotes_and_long_texts_are_read(files, tmp_path):
    rows = [{"text": f'"{i}", \nhe\x85said\u2028', "label": name} for i, name in enumerate(("neg", "POS"))]
    rows += [{"text": "long " * 40_000, "label": "positive"}, {"text": "x", "label": "negative"}]
    train = write_csv(tmp_path / "t.csv", rows)
    labelled_texts.prepare_files(train, files[1], tmp_path / "o", validation_share=0.5)
    splits, _ = prepared.load(tmp_path / "o")
    read = {e["text"]: e["label"] for name in ("train", "validation") for e in splits[name]}
    assert read == {row["text"]: int(row["label"].lower().startswith("pos")) for row in rows}


CSV = "text,label\nfine,1\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"essay,label\nfine,1\n", "has no column 'text' .*; its columns are 'essay', 'label'"),
        (b"text\nfine\n", "has no column 'label'"),
        ((CSV + '" ",0\n').encode(), "line 3: the text is empty"),
        ((CSV + "bad,2\n").encode(), "bad.csv: line 3: the label '2' has one text in the training data"),
        ((CSV + "bad\n").encode(), "line 3: the label is None"),
        ((CSV + "bad, very,0\n").encode(), "line 3 has more fields than the header"),
        ((CSV + '"bad" very,0\n').encode(), "line 3: "),
        ((CSV + "schön,0\n").encode("latin-1"), "is not UTF-8: byte 21 is 0xf6"),
        (b"text,label\n", "they hold no texts"),
        ((CSV + "good,1\n").encode(), "fewer than two different texts that are negative"),
    ],
    ids=str,
)
def test_a_bad_csv_is_refused_by_line(content, message, files, tmp_path):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        labelled_texts.prepare_files(tmp_path / "bad.csv", files[1], tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_duplicates_of_test_in_train_are_counted(files, tmp_path):
    test = write_csv(tmp_path / "t.csv", [*TEST, TRAIN[3]])
    assert labelled_texts.prepare_files(files[0], test, tmp_path / "o").test_texts_also_in_train == 1


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """What the repository stanfordnlp/imdb holds, with other texts."""
    folder = tmp_path / "snapshot"
    (folder / "plain_text").mkdir(parents=True)
    for split, rows in (("train", TRAIN), ("test", TEST), ("unsupervised", [{"text": "a", "label": -1}])):
        write_parquet(folder / "plain_text" / f"{split}-00000-of-00001.parquet", rows)
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **k: asked.append((name, k)) or str(folder)
    )
    return asked


def test_the_hubs_reviews_are_taken_where_there_is_no_data(hub, files, tmp_path, capsys):
    _, record = ensure(tmp_path / "imdb_data", "text")
    assert "the hub's imdb" in capsys.readouterr().err
    assert (record.source, record.name) == ("hub", "imdb")
    assert record.fingerprint == labelled_texts.prepare_files(*files, tmp_path / "p").fingerprint
    name, asked = hub[0]
    assert name == "stanfordnlp/imdb" and asked["local_files_only"]
    assert not any("unsupervised" in pattern for pattern in asked["allow_patterns"])
    with pytest.raises(UserError, match="choose one of imdb"):
        labelled_texts.prepare_hub("sst2", tmp_path / "o")


def test_without_a_hub_the_packaged_reviews_are_taken_and_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="--source text --train_file FILE .* or .* sample-texts"):
        labelled_texts.prepare_hub("imdb", tmp_path / "imdb_data")
    assert not (tmp_path / "imdb_data").exists()
    splits, record = ensure(tmp_path / "imdb_data", "text")
    assert "178 packaged reviews" in capsys.readouterr().err
    assert sum(len(part) for part in splits.values()) == 178
    for counts in record.counts.values():
        assert counts["texts"] == counts["different"] and abs(counts["negative"] - counts["positive"]) <= 1
    assert record.name == "sample-texts" and record.test_texts_also_in_train == 0


def test_data_of_the_other_kind_is_refused(files, tmp_path):
    labelled_texts.prepare_files(*files, tmp_path / "o")
    with pytest.raises(UserError, match="kind 'text'; this task needs 'qa'"):
        ensure(tmp_path / "o")


def test_the_script_prepares_texts_and_tells_of_them(files, tmp_path):
    flags = ("--train_file", files[0], "--test_file", files[1], "--output_dir", tmp_path / "o")
    done = run_here("prepare_data.py", "--source", "text", *flags)
    assert "train          54 texts (27 negative, 27 positive), 54 of them different" in done.stdout
    assert prepared.load(tmp_path / "o")[1].fingerprint[:12] in done.stdout
    done = run_here("prepare_data.py", "--source", "sample-texts", "--output_dir", tmp_path / "s")
    assert "test           48 texts (24 negative, 24 positive)" in done.stdout


FAULTY = {
    "a.csv": "text,label\nGood,1\n ,1\nBad,0\nSo so,\na, b,0\nDull,0\nFine,1\n",
    "a.jsonl": '{"text": "Good", "label": 1}\n{"text": "", "label": 1}\n{"text": "Bad", "label": 0}\n{"text": \n'
    '{"text": "Dull", "label": 0}\n{"feeling": 1}\n{"text": "Fine", "label": 1}\n',
}


@pytest.mark.parametrize("name", FAULTY)
def test_all_faults_of_texts_are_listed_and_can_be_skipped(name, files, tmp_path):
    (tmp_path / name).write_text(FAULTY[name])
    paths = ("--train_file", tmp_path / name, "--test_file", files[1], "--output_dir", tmp_path / "o")
    refused = run_here("prepare_data.py", "--source", "text", *paths, check=False)
    listed = [line for line in refused.stderr.splitlines() if line.startswith("  line ")]
    assert refused.returncode == 2 and "has 3 faults" in refused.stderr and len(listed) == 3
    assert not (tmp_path / "o").exists()
    done = run_here("prepare_data.py", "--source", "text", *paths, "--on_bad_rows", "skip")
    assert "3 texts were left out because of a fault" in done.stdout
    skipped = json.loads((tmp_path / "o" / "skipped.json").read_text())
    assert [f"  {row['place']}{row['reason']}" for row in skipped] == listed
    splits, record = ensure(tmp_path / "o", "text")
    assert record.skipped == 3 and len(splits["train"]) + len(splits["validation"]) == 4


NEWS = [
    {"text": f"{topic} news number {i}", "label": topic}
    for topic in ("World", "Sports", "Business", "Sci/Tech")
    for i in range(10)
]


def prepared_from(tmp_path, train, test, **how):
    files = []
    for name, rows in (("train", train), ("test", test)):
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = labelled_texts.prepare_files(*files, tmp_path / "o", validation_share=0.2, **how)
    return record, prepared.load(tmp_path / "o")[0]


def test_labels_are_any_strings(tmp_path):
    test = [row | {"text": row["text"] + "!"} for row in NEWS[::5]]
    record, splits = prepared_from(tmp_path, NEWS, test)
    assert record.labels == ("Business", "Sci/Tech", "Sports", "World") and record.version == "4 labels"
    assert (record.name, record.kind, record.pairs) == ("train.jsonl", "text", False)
    assert [record.labels[e["label"]] for e in splits["test"]] == [row["label"] for row in test]
    # Every label has its share of validation.
    assert record.texts_by_label("validation") == dict.fromkeys(record.labels, 2)
    assert record.texts_by_label("test") == dict.fromkeys(record.labels, 2)
    renamed = [row | {"label": row["label"].replace("Sports", "Sport")} for row in NEWS]
    (tmp_path / "other").mkdir()
    other, _ = prepared_from(
        tmp_path / "other", renamed, [r | {"label": r["label"].replace("Sports", "Sport")} for r in test]
    )
    assert other.fingerprint != record.fingerprint


def test_labels_are_any_integers_in_their_order(tmp_path):
    rows = [{"text": f"{label} {i}", "label": label} for label in (10, 9, -1) for i in range(3)]
    record, _ = prepared_from(tmp_path, rows, rows[:2])
    assert record.labels == ("-1", "9", "10")


def test_what_the_packaged_reviews_have_always_been(tmp_path):
    record = labelled_texts.prepare_sample(tmp_path / "o")
    assert record.fingerprint.startswith(SAMPLE_FINGERPRINT) and record.labels == ("negative", "positive")
    assert (record.version, record.label_counts) == ("binary", {})


def test_a_label_that_train_lacks_or_has_once_is_named_by_file_and_row(tmp_path):
    train, test = [*NEWS, {"text": "alone", "label": "Art"}], [NEWS[0], {"text": "new", "label": "Sport"}]
    with pytest.raises(UserError, match="The data has 2 faults") as caught:
        prepared_from(tmp_path, train, test)
    assert "train.jsonl: line 41: the label 'Art' has one text in the training data" in str(caught.value)
    assert "test.jsonl: line 2: the label 'Sport' has no text in the training data" in str(caught.value)
    record, splits = prepared_from(tmp_path, train, test, on_bad_rows="skip")
    assert record.skipped == 2 and len(splits["test"]) == 1 and len(record.labels) == 4
    skipped = json.loads((tmp_path / "o" / "skipped.json").read_text())
    assert {row["file"] for row in skipped} == {"train.jsonl", "test.jsonl"}


def test_one_label_is_nothing_to_tell_apart_and_a_thousand_are_the_most(tmp_path):
    with pytest.raises(UserError, match="all texts have the label 'World'"):
        prepared_from(tmp_path, NEWS[:10], NEWS[:2])
    rows = [{"text": f"{i} {n}", "label": f"c{n}"} for n in range(1001) for i in range(2)]
    with pytest.raises(UserError, match="1,001 different labels, such as 'c0', 'c1', 'c10'; at most 1,000"):
        prepared_from(tmp_path, rows, rows[:2])
    record, _ = prepared_from(tmp_path, rows[:2000], rows[:2])
    assert len(record.labels) == 1000


PAIRS = [
    {"premise": f"Bees dance {i}.", "hypothesis": f"{word} {i}", "label": label}
    for label, word in (("entailment", "They move"), ("neutral", "They tire"), ("contradiction", "They rest"))
    for i in range(20)
]


@pytest.mark.parametrize(
    "names",
    [
        ("text", "text_pair"),
        ("premise", "hypothesis"),
        ("sentence1", "sentence2"),
        ("question1", "question2"),
    ],
)
def test_texts_come_in_pairs(names, tmp_path):
    rows = [{names[0]: r["premise"], names[1]: r["hypothesis"], "label": r["label"]} for r in PAIRS]
    record, splits = prepared_from(tmp_path, rows, [rows[5] | {names[0]: "Another"}, rows[0]])
    assert record.pairs and splits["test"].column_names == ["id", "text", "text_pair", "label"]
    assert record.test_texts_also_in_train == 1
    # A premise is on one side alone, and every label has its share.
    assert not {e["text"] for e in splits["train"]} & {e["text"] for e in splits["validation"]}
    assert set(record.texts_by_label("validation").values()) == {4}


def test_pairs_and_single_texts_are_not_mixed(tmp_path):
    with pytest.raises(UserError, match=r"test.jsonl: line 1 has a single text, train.jsonl: line 1 a pair"):
        prepared_from(tmp_path, PAIRS, NEWS)
    with pytest.raises(UserError, match="line 1: the second text is empty"):
        prepared_from(tmp_path, [PAIRS[0] | {"hypothesis": " "}, *PAIRS], PAIRS)


FEELINGS = [["joy"], ["joy", "surprise"], [], ["anger"], ["anger", "surprise"]] * 8


def as_lists(i, labels):
    return {"text": f"text {i}", "labels": labels}


def as_text(i, labels):
    return {"text": f"text {i}", "labels": ("|" if i % 2 else "; ").join(labels)}


def as_marks(i, labels):
    return {"id": i, "text": f"text {i}"} | {n: int(n in labels) for n in ("anger", "joy", "surprise")}


@pytest.mark.parametrize("write", [as_lists, as_text, as_marks])
def test_a_text_may_have_any_number_of_labels(write, tmp_path):
    rows = [write(i, labels) for i, labels in enumerate(FEELINGS)]
    record, splits = prepared_from(tmp_path, rows, rows[:5], multi_label=True)
    assert record.labels == ("anger", "joy", "surprise")
    assert (record.kind, record.version) == ("multi-label text", "multi-label")
    assert splits["test"]["label"][:] == [[1], [1, 2], [], [0], [0, 2]]
    assert record.counts["test"] == {"texts": 5, "different": 5, "without_label": 1}
    assert record.texts_by_label("validation") == {"anger": 3, "joy": 3, "surprise": 3} or all(
        2 <= n <= 4 for n in record.texts_by_label("validation").values()
    )


def test_the_same_labels_in_every_form_have_one_fingerprint(tmp_path):
    found = set()
    for n, write in enumerate((as_lists, as_text, as_marks)):
        (tmp_path / str(n)).mkdir()
        rows = [write(i, labels) for i, labels in enumerate(FEELINGS)]
        found.add(prepared_from(tmp_path / str(n), rows, rows[:5], multi_label=True)[0].fingerprint)
    assert len(found) == 1


def test_columns_of_marks_are_chosen_and_checked(tmp_path):
    rows = [as_marks(i, labels) | {"length": i} for i, labels in enumerate(FEELINGS)]
    with pytest.raises(UserError, match="'length' is 2; as a label it must be 0 or 1"):
        prepared_from(tmp_path, rows, rows[:5], multi_label=True)
    record, _ = prepared_from(tmp_path, rows, rows[:5], multi_label=True, columns={"label": "joy+anger"})
    assert record.labels == ("anger", "joy")


def test_classes_of_the_hub_keep_their_names_and_order(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["World", "Sports", "Business"])})
    for part, count in (("train", 12), ("test", 6)):
        rows = {"text": [f"{part} {i}" for i in range(count)], "label": [i % 3 for i in range(count)]}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{part}.parquet")
    files = (tmp_path / "train.parquet", tmp_path / "test.parquet")
    record = labelled_texts.prepare_files(*files, tmp_path / "o")
    assert record.labels == ("World", "Sports", "Business")
    rows = {"text": ["a", "b"], "label": [-1, 0]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(UserError, match="row 0: the label is -1, which is none of the 3 classes"):
        labelled_texts.prepare_files(*files, tmp_path / "o")


def test_test_is_carved_where_there_is_none_and_files_may_be_several(tmp_path):
    for i in range(2):
        write_csv(tmp_path / f"part{i}.csv", NEWS[i::2])
    record = labelled_texts.prepare_files(tmp_path / "part*.csv", None, tmp_path / "o", validation_share=0.2)
    assert {split: c["texts"] for split, c in record.counts.items()} == {
        "train": 28,
        "validation": 4,
        "test": 8,
    }
    assert [f["name"] for f in record.files] == ["part0.csv", "part1.csv"]
    assert record.test_texts_also_in_train == 0


def test_few_first_texts_of_many_pairs_are_carved_whole(tmp_path):
    rows = [{"text": f"first {i % 5}", "text_pair": f"second {i}", "label": "abc"[i % 3]} for i in range(500)]
    record = labelled_texts.prepare_files(write_csv(tmp_path / "a.csv", rows), None, tmp_path / "o")
    assert {split: c["texts"] for split, c in record.counts.items()} == {
        "train": 300,
        "validation": 100,
        "test": 100,
    }


@pytest.mark.parametrize(("labels", "multi_label"), [(["a", "b"] * 2, False), (["a|b"] * 2, True)])
def test_too_few_texts_to_carve_from_are_refused(labels, multi_label, tmp_path):
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]
    file = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(
        UserError, match="Too few different texts to carve out validation; add more, or give --test_file"
    ):
        labelled_texts.prepare_files(file, None, tmp_path / "o", multi_label=multi_label)
    assert not (tmp_path / "o").exists()
    test = write_csv(tmp_path / "b.csv", rows[:2])
    if multi_label:
        record = labelled_texts.prepare_files(file, test, tmp_path / "o", multi_label=True)
        assert [counts["texts"] for counts in record.counts.values()] == [1, 1, 2]
