"""Prepared sets as one, by weights; rows keep the set that they are of."""

from collections import Counter

import pytest

from common.data import labelled_texts, mixing, questions
from common.data.prepared import load
from common.errors import UserError
from tests.support.question_rows import ROWS, save
from tests.support.texts import make_texts, write_csv


@pytest.fixture
def sets(tmp_path):
    """Two prepared folders of the same questions, the second without those that have no answer."""
    answered = [e for e in ROWS if e["answers"]["text"]]
    for name, rows in (("a", ROWS), ("b", answered)):
        file = save(tmp_path / f"{name}.json", rows)
        questions.prepare_files(file, None, tmp_path / name, validation_share=0.3)
    return tmp_path / "a", tmp_path / "b"


def test_sets_one_after_another(sets, tmp_path):
    a, b = (load(folder)[0] for folder in sets)
    record = mixing.prepare_mix(mixing.parse(f"{sets[0]},{sets[1]}"), tmp_path / "o")
    splits, loaded = load(tmp_path / "o")
    assert loaded == record and record.source == "mix" and record.name == "a+b" and record.version == "v2.0"
    for split in splits:
        assert splits[split]["origin"] == ["a"] * len(a[split]) + ["b"] * len(b[split])
        assert splits[split]["question"] == [*a[split]["question"], *b[split]["question"]]
    ids = [id_ for split in splits for id_ in splits[split]["id"]]
    assert len(set(ids)) == len(ids) and any(id_.startswith("b/q") for id_ in ids)
    assert [(part["name"], part["weight"]) for part in record.mix] == [("a", 1.0), ("b", 1.0)]
    assert record.fingerprint == questions.fingerprint({n: s.to_list() for n, s in splits.items()})


def test_weights_draw_and_repeat_training_rows_alone(sets, tmp_path):
    a, b = (load(folder)[0] for folder in sets)
    one = mixing.prepare_mix(mixing.parse(f"{sets[0]}=0.5,{sets[1]}=2.5"), tmp_path / "o", seed=1)
    splits, _ = load(tmp_path / "o")
    origins = Counter(splits["train"]["origin"])
    assert origins == {
        "a": round(0.5 * len(a["train"])),
        "b": 2 * len(b["train"]) + round(0.5 * len(b["train"])),
    }
    for split in ("validation", "test"):
        assert len(splits[split]) == len(a[split]) + len(b[split])
    again = mixing.prepare_mix(mixing.parse(f"{sets[0]}=0.5,{sets[1]}=2.5"), tmp_path / "again", seed=1)
    other = mixing.prepare_mix(mixing.parse(f"{sets[0]}=0.5,{sets[1]}=2.5"), tmp_path / "other", seed=2)
    assert again.fingerprint == one.fingerprint != other.fingerprint


def test_texts_get_the_labels_of_all_sets(tmp_path):
    news = [{"text": f"{word} {i}", "label": word} for word in ("sport", "positive") for i in range(8)]
    for name, rows in (("moods", make_texts(16, 1)), ("news", news)):
        labelled_texts.prepare_files(
            write_csv(tmp_path / f"{name}.csv", rows), None, tmp_path / name, validation_share=0.2
        )
    record = mixing.prepare_mix(mixing.parse(f"{tmp_path / 'moods'},{tmp_path / 'news'}"), tmp_path / "o")
    splits, _ = load(tmp_path / "o")
    assert record.labels == ("negative", "positive", "sport") and record.version == "3 labels"
    for e in splits["train"]:
        if e["origin"] == "news":
            assert record.labels[e["label"]] == e["text"].split()[0]
    assert record.texts_by_label("train")["sport"] > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "two prepared folders or more"),
        ("a=x,b", "is not FOLDER or FOLDER=WEIGHT"),
        ("a=0,b", "a weight above 0"),
        ("a,", "'' is not FOLDER or FOLDER=WEIGHT"),
        ("a,=0.3", "'=0.3' is not FOLDER or FOLDER=WEIGHT"),
        ("ä,ö", "metrics of 'ä' and 'ö' would both end in '_'"),
        ("a,a", "cannot be called 'a'"),
        ("low,a", "cannot be called 'low'"),
        ("none,a", "no such folder"),
        ("a=0.001,b", "takes none of"),
    ],
)
def test_a_bad_mix_is_refused(text, message, sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        mixing.prepare_mix(mixing.parse(text), tmp_path / "o")


def test_kinds_do_not_mix(sets, tmp_path):
    file = write_csv(tmp_path / "t.csv", make_texts(16, 1))
    labelled_texts.prepare_files(file, None, tmp_path / "texts", validation_share=0.2)
    with pytest.raises(UserError, match="hold data of different kinds .qa; text."):
        mixing.prepare_mix(mixing.parse(f"{sets[0]},{tmp_path / 'texts'}"), tmp_path / "o")
