import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data import labelled_texts, prepared
from common.data.ensure import ensure
from common.data.validation_split import carve_by_label
from common.errors import UserError
from tests.scripts.conftest import run_script
from tests.support.texts import make_texts, write_csv, write_parquet

TRAIN, TEST = make_texts(60, 1), make_texts(20, 2)


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


@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 1)), min_size=1, max_size=60),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_carving_keeps_duplicates_together_and_labels_in_proportion(pairs, share, seed):
    examples = [{"id": str(i), "text": f"t{t}", "label": label} for i, (t, label) in enumerate(pairs)]
    train, validation = carve_by_label(examples, share, seed)
    assert sorted(e["id"] for e in train + validation) == sorted(e["id"] for e in examples)
    assert not {e["text"] for e in train} & {e["text"] for e in validation}
    rows = Counter(e["text"] for e in examples)
    first = {}
    for e in examples:
        first.setdefault(e["text"], e["label"])
    for label in (0, 1):
        of_label = [text for text in first if first[text] == label]
        if len(of_label) > 1:
            chosen = [text for text in of_label if text in {e["text"] for e in validation}]
            assert 0 < len(chosen) < len(of_label)
            size, goal = sum(rows[t] for t in chosen), share * sum(rows[t] for t in of_label)
            assert size <= goal or len(chosen) == 1
    assert carve_by_label(examples, share, seed) == (train, validation)


def test_different_texts_are_carved_to_the_share_exactly():
    examples = [{"text": e["text"], "label": e["label"]} for e in make_texts(200)]
    assert Counter(e["label"] for e in carve_by_label(examples, 0.1, 0)[1]) == {0: 10, 1: 10}
    with pytest.raises(UserError, match="--validation_share"):
        carve_by_label(examples, 1.0, 0)


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
        ((CSV + "bad,2\n").encode(), "line 3: the label is '2'; it must be 0 or 1, neg or pos"),
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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "feeling": 1}], "has no column 'label'"),
        ([{"text": "a", "label": 0}, {"text": "", "label": 1}], "row 1: the text is empty"),
        ([{"text": "a", "label": 0}, {"text": None, "label": 1}], "row 1: the text is empty"),
        ([{"text": 5, "label": 0}], "row 0: the text is 5, not text"),
        ([{"text": "a", "label": -1}], "row 0: the label is -1"),
        ([{"text": "a", "label": True}], "row 0: the label is True"),
        ([{"text": "a", "label": None}], "row 0: the label is None"),
    ],
    ids=str,
)
def test_a_bad_parquet_is_refused_by_row(rows, message, files, tmp_path):
    with pytest.raises(UserError, match=message):
        labelled_texts.prepare_files(write_parquet(tmp_path / "bad.parquet", rows), files[1], tmp_path / "o")


def test_what_is_no_parquet_and_what_is_not_utf8_in_it(files, tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "bad.parquet").write_bytes(b"text,label")
    for name, message in (("bad.parquet", "cannot be read as parquet"), ("none.parquet", "No such file")):
        with pytest.raises(UserError, match=message):
            labelled_texts.prepare_files(tmp_path / name, files[1], tmp_path / "o")
    text = pyarrow.array([b"fine", b"sch\xf6n"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": text, "label": [0, 1]}), tmp_path / "latin.parquet")
    with pytest.raises(UserError, match="row 1 is not UTF-8"):
        labelled_texts.prepare_files(tmp_path / "latin.parquet", files[1], tmp_path / "o")


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
    done = run_script("prepare_data.py", "--source", "text", *flags)
    assert "train          54 texts (27 negative, 27 positive), 54 of them different" in done.stdout
    assert prepared.load(tmp_path / "o")[1].fingerprint[:12] in done.stdout
    done = run_script("prepare_data.py", "--source", "sample-texts", "--output_dir", tmp_path / "s")
    assert "test           48 texts (24 negative, 24 positive)" in done.stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'review,sentiment\n"Good; really, it is.",positive\nBad,negative\n'),
        ("a.csv", "Text;Label\nGood, really;1.00\nBad, really;0.0\n"),
        ("a.tsv", "id\ttext\tlabel\n1\tGood\tLABEL_1\n2\tBad\tLABEL_0\n"),
        ("a.jsonl", '{"text": "Good", "label": 1}\n\n{"text": "Bad", "label": "Negative"}\n'),
        ("a.json", '[{"text": "Good", "label": 1.0}, {"text": "Bad", "label": 0}]'),
        ("a.txt", '{"text": "Good", "label": "Positive"}\n{"text": "Bad", "label": "neg"}\n'),
        ("a.tsv", 'sentence\tlabel\nGood "film\t1\n"Bad" film\t0\n'),
    ],
    ids=["kaggle", "semicolon", "tab", "lines", "list", "lines by content", "tab without quoting"],
)
def test_other_columns_delimiters_and_labels(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    found = labelled_texts.read_files([tmp_path / name], "train")
    assert [e["label"] for e in found] == [1, 0]
    assert found[0]["text"].startswith("Good") and found[1]["text"].strip('"').startswith("Bad")


def test_a_line_that_is_not_json_is_refused_by_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "Good", "label": 1}\n{"text": \n')
    with pytest.raises(UserError, match="line 2 is not JSON"):
        labelled_texts.read_files([tmp_path / "a.jsonl"], "train")


def test_json_lines_end_at_line_feeds_alone(tmp_path):
    text = "Good \N{LINE SEPARATOR}and \N{NEXT LINE}long"
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": text, "label": 1}, ensure_ascii=False) + "\r\n", "utf-8"
    )
    assert labelled_texts.read_files([tmp_path / "a.jsonl"], "train")[0]["text"] == text


FAULTY = {
    "a.csv": "text,label\nGood,1\n ,1\nBad,0\nSo so,2\na, b,0\nDull,0\nFine,1\n",
    "a.jsonl": '{"text": "Good", "label": 1}\n{"text": "", "label": 1}\n{"text": "Bad", "label": 0}\n{"text": \n'
    '{"text": "Dull", "label": 0}\n{"feeling": 1}\n{"text": "Fine", "label": 1}\n',
}


@pytest.mark.parametrize("name", FAULTY)
def test_all_faults_of_texts_are_listed_and_can_be_skipped(name, files, tmp_path):
    (tmp_path / name).write_text(FAULTY[name])
    paths = ("--train_file", tmp_path / name, "--test_file", files[1], "--output_dir", tmp_path / "o")
    refused = run_script("prepare_data.py", "--source", "text", *paths, check=False)
    listed = [line for line in refused.stderr.splitlines() if line.startswith("  line ")]
    assert refused.returncode == 2 and "has 3 faults" in refused.stderr and len(listed) == 3
    assert not (tmp_path / "o").exists()
    done = run_script("prepare_data.py", "--source", "text", *paths, "--on_bad_rows", "skip")
    assert "3 texts were left out because of a fault" in done.stdout
    skipped = json.loads((tmp_path / "o" / "skipped.json").read_text())
    assert [f"  {row['place']}{row['reason']}" for row in skipped] == listed
    splits, record = ensure(tmp_path / "o", "text")
    assert record.skipped == 3 and len(splits["train"]) + len(splits["validation"]) == 4
